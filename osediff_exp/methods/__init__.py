"""Methods of restoration: what each builds on a frozen backbone, trains and samples with."""
