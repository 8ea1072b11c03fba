#!/usr/bin/env bash
# Score the longer ablation's arms on real pairs: REALSR has test_LR and test_HR, PHOTOS the training photos, SWEEP the ablation's folder.
set -euo pipefail
REALSR=${REALSR:?} PHOTOS=${PHOTOS:?} SWEEP=${SWEEP:?}
for lambda2 in ${LAMBDAS:-0 1 2}; do
  checkpoint=$(echo "$SWEEP"/*_lambda2="$lambda2"/checkpoints/last.ckpt)
  # A checkpoint that has all its steps is only validated.
  python -m osediff_exp lambda2="$lambda2" resume="$checkpoint" logger.wandb.mode=disabled \
    data=folder data.root="$PHOTOS/train" data.val_lr_root="$REALSR/test_LR" data.val_hr_root="$REALSR/test_HR" data.crop_size=96 \
    trainer.max_steps=400 trainer.ema_decay=0.99 hydra.run.dir="${SWEEP}_realsr/lambda2=$lambda2" "$@"
done
