"""Methods of diffusion super-resolution: what each builds on the backbone, trains and samples."""
