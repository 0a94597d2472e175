"""What the paper prints (Desai & Vasconcelos, ECCV 2024, tables 2a and 2b), to stand beside our rows."""

PAPER = {
    "attend-and-excite": {
        "Stable Diffusion": {
            "clip cosine min object": "0.242",
            "clip cosine full prompt": "0.335",
            "inception score": "13.17",
        },
        "SD + auto-DNP": {
            "clip cosine min object": "0.258 (+6.61%)",
            "clip cosine full prompt": "0.346 (+3.28%)",
            "inception score": "13.35 (+1.37%)",
        },
        "A&E": {"clip cosine min object": "0.264", "clip cosine full prompt": "0.349", "inception score": "11.86"},
        "A&E + auto-DNP": {
            "clip cosine min object": "0.276 (+4.54%)",
            "clip cosine full prompt": "0.362 (+3.72%)",
            "inception score": "13.12 (+10.62%)",
        },
    },
    "humans": {
        "Stable Diffusion": {"clip cosine": "0.322", "inception score": "9.95"},
        "SD + auto-DNP": {"clip cosine": "0.331 (+2.80%)", "inception score": "10.13 (+1.80%)"},
    },
    "hands": {
        "Stable Diffusion": {"clip cosine": "0.309", "inception score": "12.04"},
        "SD + auto-DNP": {"clip cosine": "0.321 (+3.88%)", "inception score": "12.39 (+2.94%)"},
    },
}


def setting(categories: set[str]) -> str | None:
    """The table that a run's prompts belong to."""
    if categories <= {"animal-animal", "animal-object", "object-object"}:
        return "attend-and-excite"
    return next((name for name in ("humans", "hands") if categories == {name}), None)
