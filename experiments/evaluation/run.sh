#!/usr/bin/env bash
# Score the authors' outputs, then set bicubic, the authors' outputs and trained checkpoints beside the published rows. Run from the
# repository root. REALSR has test_LR, test_HR and results_osediff; CHECKPOINTS lists run folders (or checkpoints), the first one leads
# the table; RUNS is where the runs go. The last command stops with one line where Real-ESRGAN is not installed (README).
set -euo pipefail
REALSR=${REALSR:?set REALSR to the folder with test_LR, test_HR and results_osediff}
RUNS=${RUNS:-runs/evaluation}
read -r -a arms <<<"${CHECKPOINTS:-}"

python -m osediff_exp task=score pred="$REALSR/results_osediff" gt="$REALSR/test_HR" hydra.run.dir="$RUNS/score_authors"

restorers="bicubic,'outputs:$REALSR/results_osediff'"
for arm in "${arms[@]}"; do
  restorers+=",'checkpoint:$arm'"
done
for color_fix in adain none; do
  python -m osediff_exp task=evaluate data=realsr data.root="$REALSR" "restorers=[$restorers]" restorer.color_fix="$color_fix" \
    hydra.run.dir="$RUNS/realsr_$color_fix" "$@"
done

python -m osediff_exp task=evaluate data=realsr data.root="$REALSR" "restorers=[realesrgan,bicubic,'outputs:$REALSR/results_osediff']" \
  hydra.run.dir="$RUNS/realesrgan" "$@"
