#!/usr/bin/env bash
# Which timestep suits the tiny backbone? PHOTOS has the folders train and val. Run from the repository root.
set -euo pipefail
PHOTOS=${PHOTOS:?set PHOTOS to a folder with train/ and val/}
python -m osediff_exp -m generator.timestep=25,100,200,350,600,999 lambda2=0 loss.terms.st_lpips.weight=2 trainer.ema_decay=null \
  data=folder data.root="$PHOTOS/train" data.val_root="$PHOTOS/val" data.crop_size=96 data.val_size=128 data.num_workers=1 \
  data.cache_images=true trainer.max_steps=60 trainer.validate_every=60 trainer.checkpoint_every=60 \
  report.title="Which timestep suits the tiny backbone?" "$@"
