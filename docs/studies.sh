#!/usr/bin/env bash
# The runs behind docs/ablations.md and docs/when.md. Stopped, it goes on where it was.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
OUT=${OUT:-out/studies}
how=${HOW:---prompts world --seeds 0-1 --steps 12 --dns-steps 8 --workers 2}

# Formulations, each over scales: its own best one is the fair comparison
dnp ablate "CFG(s)" "NegPrompt(s, strength=0.5)" "NegPrompt(s, evaluations=2)" "NegPrompt(s, evaluations=3)" \
    "ANSWER(s)" "ANSWER(s, above=3)" --scales 5,7.5,10 $how --out $OUT/formulations

# Strength of the negative from little to beyond the scale; own captions, those of other prompts, one for all
dnp ablate "NegPrompt(s, strength=w)" --scales 7.5 --strengths 0.5,1,2,6.5,7.5,10 --negatives auto,shuffled,universal \
    $how --out $OUT/strength

# Models: the last training with right captions only, and with 60 % of wrong ones (the embedded one's has 30 %)
for share in 0.0 0.6; do
    dnp ablate "CFG(s)" "NegPrompt(s, strength=0.5)" "NegPrompt(s, evaluations=2)" --strengths 0.5 --dns "DNS(5)" \
        --scales 5,7.5 --model build/wrong-$share $how --out $OUT/wrong-$share
done

# When: from a noise level on down to the end, and from the beginning down to one
dnp ablate "u + s*(p - u) - StepScale(0, w, 5)*(n - u)" "u + s*(p - u) - StepScale(0, w, 2)*(n - u)" \
    "u + s*(p - u) - StepScale(0, w, 0.7)*(n - u)" "u + s*(p - u) - StepScale(w, 0, 5)*(n - u)" \
    "u + s*(p - u) - StepScale(w, 0, 2)*(n - u)" "u + s*(p - u) - StepScale(w, 0, 0.7)*(n - u)" \
    "NegPrompt(s, strength=w)" --scales 7.5 --strengths 2 $how --out $OUT/windows

# What of the caption does it
dnp ablate "NegPrompt(s, strength=w)" --scales 7.5 --strengths 1 \
    --negatives auto,auto-without-prompt,auto-background,shuffled,universal,random $how --out $OUT/captions

# The diffusion-negative in fewer steps, and at other scales
dnp ablate "NegPrompt(s, strength=w)" --scales 7.5 --strengths 0.5 $how --dns-steps 4,6,8,16,50 --out $OUT/dns-steps
dnp ablate "NegPrompt(s, strength=w)" --scales 7.5 --strengths 0.5 --dns "DNS(1)" --dns "DNS(3)" --dns "DNS(7.5)" \
    --dns "DNS(15)" $how --out $OUT/dns-scale

python docs/figures/studies.py "$OUT"
