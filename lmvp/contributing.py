"""The part of a client that is about contributions: versions that are proposed, and accepted or declined."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from lmvp.base_client import BaseClient, model_path
from lmvp.errors import InvalidReference
from lmvp.records import Alias, Contribute, Contribution, Fork, Model, ModelChange, MoveAlias, Version, Words
from lmvp.references import Revision, check_alias
from lmvp.text import quoted


class Contributing(BaseClient):
    """The verbs around contributions; `lmvp.Client` has them all. `name` is as `digits/mlp@c12`."""

    def fork(self, name: str, to: str) -> Model:
        """Copy a model with its whole history to a project where you may write, without sending or storing it again.

        Parameters
        ----------
        name : str
            `[project/]model`.
        to : str
            `project/model`; the project is made if it is not there.

        Returns
        -------
        Model
            The fork, which knows its `origin`; aliases and contributions stay behind.

        Raises
        ------
        AlreadyExists
            If there is a model of that name.
        """
        path = f"{model_path(self._reference(name))}/fork"
        target = self._reference(to)
        return self._connection.send_json("POST", path, Fork(to=f"{target.project}/{target.model}"), Model)

    def contribute(self, name: str, message: str = "") -> Version:
        """Propose a version of a fork to the model that it was forked from.

        Parameters
        ----------
        name : str
            `[project/]model[@revision]`, of the fork.
        message : str
            What is new; that of the version, if none is given.

        Returns
        -------
        Version
            As it is proposed there: `digits/mlp@c3`.

        Raises
        ------
        Conflict
            If the model is no fork.
        """
        place = self._reference(name)
        path = f"{model_path(place)}/versions/{quote(place.revision, safe='')}/contribute"
        return self._connection.send_json("POST", path, Contribute(message=message), Version)

    def contributions(self, project: str | None = None, *, status: str = "") -> list[Contribution]:
        """Return the contributions to a project, newest first.

        Parameters
        ----------
        status : str
            Only those that are `proposed`, `accepted`, `declined` or `withdrawn`.
        """
        path = f"/projects/{quoted(project or self.project)}/contributions"
        return self._some(path, Contribution, None, **({"status": status} if status else {}))[0]

    def contribution(self, name: str) -> Contribution:
        """Return one contribution."""
        return self._connection.get(self._contribution(name), Contribution)

    def accept(self, name: str) -> Contribution:
        """Make a contribution the next version of its model, by its author; for maintainers.

        Raises
        ------
        Conflict
            If it is decided already, or does not meet what the model requires.
        """
        return self._say(name, "accept", {})

    def decline(self, name: str, reason: str) -> Contribution:
        """Say no to a contribution, and why; for maintainers."""
        return self._say(name, "decline", Words(words=reason))

    def withdraw(self, name: str) -> Contribution:
        """Take one's own contribution back."""
        return self._say(name, "withdraw", {})

    def comment(self, name: str, words: str) -> Contribution:
        """Say something about a contribution."""
        return self._say(name, "comments", Words(words=words))

    def require(self, name: str, rule: str) -> Model:
        """Say what contributions to a model must meet to be accepted; for maintainers.

        Parameters
        ----------
        name : str
            `[project/]model`.
        rule : str
            A condition in the language of filters (docs/api.md): `val/acc >= @production and params.lr < 0.01`; empty:
            no condition.
        """
        return self._connection.send_json("PATCH", model_path(self._reference(name)), ModelChange(require=rule), Model)

    def protect(self, name: str, *, on: bool = True) -> Model:
        """Let only maintainers move an alias, or, with `on=False`, contributors too; for maintainers.

        Parameters
        ----------
        name : str
            `[project/]model@alias`; the alias need not exist yet.
        """
        place = self._reference(name)
        alias = check_alias(place.revision)
        path = model_path(place)
        there = [each for each in self._connection.get(path, Model).protected if each.lower() != alias.lower()]
        protected = (*there, alias) if on else tuple(there)
        return self._connection.send_json("PATCH", path, ModelChange(protected=protected), Model)

    def alias_history(self, name: str) -> Alias:
        """Return an alias with all its `moves`: the version, the time and the user of each.

        Parameters
        ----------
        name : str
            `[project/]model@alias`.
        """
        place = self._reference(name)
        return self._connection.get(f"{model_path(place)}/aliases/{quote(check_alias(place.revision), safe='')}", Alias)

    def rollback(self, name: str, *, yes: bool = False) -> Alias:
        """Move an alias back to the version that it pointed at before its last move; for maintainers.

        Parameters
        ----------
        name : str
            `[project/]model@alias`.
        yes : bool
            Confirm the move of a protected alias.

        Returns
        -------
        Alias
            The alias, with its `moves`.

        Raises
        ------
        ProtectedAlias
            If the alias is protected, without `yes`.
        """
        place = self._reference(name)
        revision = Revision.parse(place.revision)
        if revision.kind != "alias" or revision.back or revision.at is not None:
            raise InvalidReference(f"{name!r} names no alias", hint="digits/mlp@production")
        path = f"{model_path(place)}/aliases/{quote(revision.value, safe='')}"
        if not yes:
            now = self._connection.get(path, Alias)
            number = now.moves[-2].number if len(now.moves) > 1 else 0
            if number:  # otherwise, the server says that there is no move to undo
                hint = f"`lmvp rollback {name} --yes` moves it"
                now.check_move(number, f"moved back to v{number}", hint)
        return self._connection.send_json("PUT", path, MoveAlias(revision=f"{revision.value}@{{1}}"), Alias)

    def _say(self, name: str, what: str, body: Any) -> Contribution:
        return self._connection.send_json("POST", f"{self._contribution(name)}/{what}", body, Contribution)

    def _contribution(self, name: str) -> str:
        place = self._reference(name)
        revision = Revision.parse(place.revision)
        if revision.kind != "contribution" or revision.back:
            raise InvalidReference(
                f"{name!r} names no contribution", hint="write `digits/mlp@c12`; `lmvp contributions` lists them"
            )
        return f"{model_path(place)}/contributions/{revision.value[1:]}"
