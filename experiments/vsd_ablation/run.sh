#!/usr/bin/env bash
# The longer ablation: PHOTOS has the folders train and val. Run from the repository root.
set -euo pipefail
PHOTOS=${PHOTOS:?set PHOTOS to a folder with train/ and val/}
python -m osediff_exp -m lambda2=0,1,2 \
  data=folder data.root="$PHOTOS/train" data.val_root="$PHOTOS/val" data.crop_size=96 data.val_size=128 data.num_workers=1 \
  data.cache_images=true trainer.max_steps=400 trainer.validate_every=100 trainer.checkpoint_every=100 trainer.ema_decay=0.99 "$@"
