"""The versions of models: which take new sessions, which only have some, and which could not be loaded. Pure.

A version has a number, the next one when it is loaded, that says which it is in every column and is never given again.
"""

from collections.abc import Iterator
from typing import NamedTuple

from service.errors import ModelDiffersError, ModelNotFoundError
from service.repository import LoadedModel, ServedModel, WholeModel


class Failure(NamedTuple):
    """A version that could not be loaded."""

    name: str
    version: str
    error: str


class Models:
    """Every version that was ever loaded."""

    def __init__(self) -> None:
        self.served: list[ServedModel] = []
        """By number. Those that are gone keep their place, name and contract."""
        self._loaded: dict[int, ServedModel] = {}
        self._newest: dict[str, ServedModel] = {}
        """What takes the new sessions of a name."""
        self._whole: dict[str, WholeModel] = {}
        """Of names that have no sessions. Whatever takes its place, it is gone at once."""
        self._failures: dict[str, Failure] = {}
        """The last one of a name, until a version of it is loaded."""

    def __iter__(self) -> Iterator[ServedModel]:
        """The versions that are loaded, by name, and those that take new sessions first."""
        return iter(sorted(self._loaded.values(), key=lambda m: (m.name, not self.is_serving(m), m.number)))

    @property
    def serving(self) -> list[ServedModel]:
        """Those that take new sessions, by name."""
        return [self._newest[name] for name in sorted(self._newest)]

    @property
    def whole(self) -> list[WholeModel]:
        """Those that have no sessions, by name."""
        return [self._whole[name] for name in sorted(self._whole)]

    @property
    def keys(self) -> list[str]:
        """Name and version of all that take sessions or whole inputs."""
        return sorted([*(model.key for model in self.serving), *(model.key for model in self.whole)])

    @property
    def failures(self) -> list[Failure]:
        """What could not be loaded, by name."""
        return [self._failures[name] for name in sorted(self._failures)]

    def find(self, name: str, version: str = "") -> ServedModel:
        """What takes new sessions of this name; an empty version is any.

        Raises:
            ModelNotFoundError: nothing does, or another version.
            ModelDiffersError: the model has no sessions.
        """
        model = self._newest.get(name) or self._whole.get(name)
        if model is None or version not in ("", model.version):
            raise self._not_served(name, version)
        if isinstance(model, WholeModel):
            raise ModelDiffersError(
                f"model {model.key!r} has no sessions: it needs all of its input at once; use Infer"
            )
        return model

    def find_whole(self, name: str, version: str = "") -> WholeModel:
        """What takes whole inputs by this name; an empty version is any.

        Raises:
            ModelNotFoundError: nothing does, or another version.
            ModelDiffersError: the model has sessions.
        """
        model = self._whole.get(name) or self._newest.get(name)
        if model is None or version not in ("", model.version):
            raise self._not_served(name, version)
        if isinstance(model, ServedModel):
            raise ModelDiffersError(f"model {model.key!r} goes step by step; open a session and step it")
        return model

    def _not_served(self, name: str, version: str) -> ModelNotFoundError:
        wanted = f"{name}/{version}" if version else name
        served = ", ".join(self.keys) or "none"
        return ModelNotFoundError(f"model {wanted!r} is not served; served are: {served}")

    def versions_of(self, name: str, version: str) -> list[ServedModel]:
        """Whatever is loaded by this name and version; twice, if its file has changed."""
        return [model for model in self if (model.name, model.version) == (name, version)]

    def is_serving(self, model: LoadedModel) -> bool:
        """Whether it takes new sessions, or whole inputs."""
        return model is self._newest.get(model.name) or model is self._whole.get(model.name)

    def siblings(self, model: ServedModel) -> list[ServedModel]:
        """The other loaded versions over the same rows: sessions can go from one to the other."""
        return [other for other in self._loaded.values() if other.rows is model.rows and other is not model]

    def add(self, model: ServedModel) -> None:
        """It can step sessions from now on."""
        assert model.number == len(self.served)
        self.served.append(model)
        self._loaded[model.number] = model

    def serve(self, model: ServedModel) -> None:
        """It takes the new sessions of its name."""
        self._newest[model.name] = model
        self._whole.pop(model.name, None)
        self._failures.pop(model.name, None)

    def serve_whole(self, model: WholeModel) -> None:
        """It takes the whole inputs of its name, which takes no new sessions."""
        self._whole[model.name] = model
        self._newest.pop(model.name, None)
        self._failures.pop(model.name, None)

    def drop_whole(self, name: str, version: str) -> bool:
        """It takes no inputs any more; returns whether there was one of this version."""
        found = name in self._whole and self._whole[name].version == version
        if found:
            del self._whole[name]
        return found

    def retire(self, model: ServedModel) -> None:
        """It takes no new sessions."""
        if self.is_serving(model):
            del self._newest[model.name]

    def remove(self, model: ServedModel) -> None:
        """It is gone."""
        del self._loaded[model.number]
        self.served[model.number] = model.gone()

    def fail(self, failure: Failure) -> None:
        """A version could not be loaded: remember why."""
        self._failures[failure.name] = failure

    def forget_failure(self, name: str, version: str) -> bool:
        """Nobody wants this version any more; returns whether it had failed."""
        failure = self._failures.get(name)
        if failure is None or failure.version != version:
            return False
        del self._failures[name]
        return True
