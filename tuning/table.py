"""Prints the recipes of this folder as the site's table.

python tuning/table.py
"""

from pathlib import Path
from typing import Any

from keras_hybrid.recipes import Recipe

HEAD = (
    "recipe",
    "epochs",
    "switch after",
    "factor on rho",
    "validation accuracy, %",
    "library default",
    "Adam alone",
    "SGD alone",
    "epochs trained",
    "minutes",
)


def _percent(score: dict[str, Any]) -> str:
    return f"{100 * score['mean']:.2f} ± {100 * (score['std'] or 0):.2f}"


def row(recipe: Recipe) -> tuple[str, ...]:
    """What a search found and what it cost; the best score is bold."""
    references = recipe.search["references"]
    scores = [
        recipe.score,
        *(references[k] for k in ("default", "adam", "sgd")),
    ]
    best = max(score["mean"] for score in scores)
    texts = [
        f"**{_percent(score)}**" if score["mean"] == best else _percent(score)
        for score in scores
    ]
    trained, whole = (
        recipe.search[f"epochs_{name}"] for name in ("trained", "unshared")
    )
    epochs = recipe.budget["epochs"]
    switch, factor = str(recipe.plan.switch_epoch(epochs)), "-"
    if recipe.plan.when == "start":
        switch = "SGD alone" if recipe.plan.end == 1 else "Adam alone"
    else:
        factor = f"{recipe.plan.multiplier:g}"
    return (
        f"`{recipe.name}`",
        str(epochs),
        switch,
        factor,
        *texts,
        f"{trained} of {whole} ({trained / whole:.0%})",
        f"{recipe.search['seconds'] / 60:.0f}",
    )


def table() -> str:
    """Returns the table of all recipes in Markdown."""
    folder = Path(__file__).resolve().parent
    recipes = [Recipe.load(path) for path in sorted(folder.glob("*.json"))]
    rows = [HEAD, ["---"] * len(HEAD), *(row(recipe) for recipe in recipes)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)


if __name__ == "__main__":
    print(table())
