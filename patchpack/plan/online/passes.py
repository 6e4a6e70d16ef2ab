"""The count of passes over a repeated source, and the check whether another pass could have a usable sample."""

from __future__ import annotations

from patchpack.plan.recipe import Recipe

_EMPTY = 10  # a random rule may refuse every image of a small source in one pass, and take some in the next pass


class Passes:
    """Two counters: the number of the current pass over a source, and how many passes just before it had no usable sample.

    A sample is usable if the recipe takes it.

    Args:
        recipe: recipe that takes or refuses the samples.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._most_empty = _EMPTY if recipe.redraws else 1
        self._number = self._empty = 0
        self._taken_any = False  # in this pass

    def take(self) -> None:
        """Note that the recipe took a sample of the current pass."""
        self._taken_any = True

    def reach(self, number: int) -> None:
        """Note that a sample of pass `number` was read."""
        if number > self._number:
            self._empty = 0 if self._taken_any else self._empty + 1
            self._number, self._taken_any = number, False

    @property
    def nothing_usable(self) -> bool:
        """True if the most recent passes had no usable sample, and another pass would not help."""
        return self._empty >= self._most_empty

    def state(self) -> list[int | bool]:
        """Return the state, JSON-safe."""
        return [self._number, self._empty, self._taken_any]

    def restore(self, state: list[int | bool]) -> None:
        """Continue from a state that `state` returned."""
        number, empty, taken = state
        self._number, self._empty, self._taken_any = int(number), int(empty), bool(taken)
