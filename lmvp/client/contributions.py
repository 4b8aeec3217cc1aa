"""Methods of `Client` for forks, contributions, aliases and the rules of a model (requirement, protected aliases)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from lmvp.client._base import BaseClient, model_path
from lmvp.core.references import Reference, Revision, check_alias, check_name
from lmvp.core.sanitize import quoted
from lmvp.core.schemas import (
    Alias,
    Contribute,
    Contribution,
    Fork,
    Model,
    ModelChange,
    MoveAlias,
    Version,
    Words,
)
from lmvp.errors import InvalidReference, NotFound


class Contributing(BaseClient):
    """Base class of `Client` with the methods for forks, contributions and aliases.

    A contribution has the name `[project/]model@c12`, for example `digits/mlp@c12`.
    """

    def fork(self, name: str, to: str) -> Model:
        """Copy a model with its history to another project on the server.

        The copy needs no upload, and the server stores the bytes once. Aliases and contributions are not copied.

        Parameters
        ----------
        name : str
            The model to copy: `[project/]model`.
        to : str
            The name of the copy: `[project/]model`. A missing project is created.

        Returns
        -------
        Model
            The fork. Its `origin` is the model that it was copied from.

        Raises
        ------
        NotFound
            If the model does not exist.
        AlreadyExists
            If `to` exists already.
        Conflict
            If the model has no versions.
        AccessDenied
            If the caller cannot push to the project of `to`.

        Examples
        --------
        >>> client.fork("digits/mlp", "ada/mlp")  # doctest: +SKIP
        """
        path = f"{model_path(self._reference(name))}/fork"
        target = self._reference(to)
        return self._connection.send_json("POST", path, Fork(to=f"{target.project}/{target.model}"), Model)

    def contribute(self, name: str, message: str = "") -> Version:
        """Propose a version of a fork to the model that it was forked from.

        Parameters
        ----------
        name : str
            The version of the fork: `[project/]model[@revision]`.
        message : str, default ""
            A description of the change. Empty: the message of the version.

        Returns
        -------
        Version
            The contribution in the original model, for example `digits/mlp@c3`.

        Raises
        ------
        NotFound
            If the version does not exist.
        Conflict
            If the model is not a fork.

        Examples
        --------
        >>> client.contribute("ada/mlp@v7", "augment with rotations")  # doctest: +SKIP
        """
        place = self._reference(name)
        path = f"{model_path(place)}/versions/{quote(place.revision, safe='')}/contribute"
        return self._connection.send_json("POST", path, Contribute(message=message), Version)

    def contributions(self, project: str | None = None, *, status: str = "") -> list[Contribution]:
        """Return the contributions to a project, newest first.

        Parameters
        ----------
        project : str, optional
            The project. Default: the current project.
        status : {"", "proposed", "accepted", "declined", "withdrawn"}, default ""
            Return only the contributions with this status. Empty: all.

        Returns
        -------
        list of Contribution
        """
        path = f"/projects/{quoted(project or self.project)}/contributions"
        return self._some(path, Contribution, None, **({"status": status} if status else {}))[0]

    def contribution(self, name: str) -> Contribution:
        """Return a contribution.

        Parameters
        ----------
        name : str
            The contribution: `[project/]model@c12`.

        Raises
        ------
        NotFound
            If the contribution does not exist.
        InvalidReference
            If the name is not that of a contribution.
        """
        return self._connection.get(self._contribution(name), Contribution)

    def accept(self, name: str) -> Contribution:
        """Accept a contribution. It becomes the next version of its model, with its author. Requires maintainer.

        Parameters
        ----------
        name : str
            The contribution: `[project/]model@c12`.

        Returns
        -------
        Contribution
            The contribution; `accepted` is the number of the new version.

        Raises
        ------
        Conflict
            If the contribution is already decided, or does not meet the requirement of the model.
        AccessDenied
            If the caller is not a maintainer.

        Examples
        --------
        >>> client.accept("digits/mlp@c12")  # doctest: +SKIP
        """
        return self._say(name, "accept", {})

    def decline(self, name: str, reason: str) -> Contribution:
        """Decline a contribution. Requires maintainer.

        Parameters
        ----------
        name : str
            The contribution: `[project/]model@c12`.
        reason : str
            The reason, which the author can read. It must not be empty.

        Returns
        -------
        Contribution
            The declined contribution.

        Raises
        ------
        Conflict
            If the contribution is already decided.
        AccessDenied
            If the caller is not a maintainer.

        Examples
        --------
        >>> client.decline("digits/mlp@c12", "the test set has leaked")  # doctest: +SKIP
        """
        return self._say(name, "decline", Words(words=reason))

    def withdraw(self, name: str) -> Contribution:
        """Withdraw a contribution of the caller.

        Parameters
        ----------
        name : str
            The contribution: `[project/]model@c12`.

        Returns
        -------
        Contribution
            The withdrawn contribution.

        Raises
        ------
        Conflict
            If the contribution is already decided.
        AccessDenied
            If another user proposed the contribution.
        """
        return self._say(name, "withdraw", {})

    def comment(self, name: str, words: str) -> Contribution:
        """Add a comment to a contribution.

        Parameters
        ----------
        name : str
            The contribution: `[project/]model@c12`.
        words : str
            The text of the comment.

        Returns
        -------
        Contribution
            The contribution with its comments.

        Raises
        ------
        Conflict
            If the contribution has the maximum number of comments.
        AccessDenied
            If the caller is not a contributor.

        Examples
        --------
        >>> client.comment("digits/mlp@c12", "please add val_loss")  # doctest: +SKIP
        """
        return self._say(name, "comments", Words(words=words))

    def require(self, name: str, rule: str) -> Model:
        """Set the requirement that contributions to a model must meet to be accepted. Requires maintainer.

        Parameters
        ----------
        name : str
            `[project/]model`.
        rule : str
            A filter (docs/api.md, Filters), for example `val/acc >= @production and params.lr < 0.01`. Empty: remove
            the requirement.

        Returns
        -------
        Model
            The model with the requirement.

        Raises
        ------
        InvalidArgument
            If the rule cannot be parsed.
        AccessDenied
            If the caller is not a maintainer.

        Examples
        --------
        >>> client.require("digits/mlp", "val_acc >= @production")  # doctest: +SKIP
        """
        return self._connection.send_json("PATCH", model_path(self._reference(name)), ModelChange(require=rule), Model)

    def protect(self, name: str, *, on: bool = True) -> Model:
        """Protect an alias, so that only maintainers can move it. Requires maintainer.

        Parameters
        ----------
        name : str
            `[project/]model@alias`. The alias does not have to exist yet.
        on : bool, default True
            False removes the protection; contributors can then move the alias too.

        Returns
        -------
        Model
            The model; `protected` contains the protected aliases.

        Raises
        ------
        AccessDenied
            If the caller is not a maintainer.

        Examples
        --------
        >>> client.protect("digits/mlp@staging")  # doctest: +SKIP
        """
        place = self._reference(name)
        alias = check_alias(place.revision)
        path = model_path(place)
        # The request replaces the whole list, and names of aliases do not depend on case.
        there = [each for each in self._connection.get(path, Model).protected if each.lower() != alias.lower()]
        protected = (*there, alias) if on else tuple(there)
        return self._connection.send_json("PATCH", path, ModelChange(protected=protected), Model)

    def aliases(self, name: str) -> list[Alias]:
        """Return the aliases of a model, ordered by name.

        Parameters
        ----------
        name : str
            `[project/]model`.

        Returns
        -------
        list of Alias
        """
        return self._list(f"{model_path(self._reference(name))}/aliases", Alias)

    def alias(self, name: str, alias: str, *, yes: bool = False) -> Alias:
        """Point an alias at a version; create the alias if it does not exist.

        Parameters
        ----------
        name : str
            The version: `[project/]model[@revision]`.
        alias : str
            The name of the alias.
        yes : bool, default False
            Confirm the move of a protected alias, such as `production`, from another version.

        Returns
        -------
        Alias
            The alias, with the history of its moves in `moves`.

        Raises
        ------
        ProtectedAlias
            If the alias is protected, points at another version, and `yes` is False.

        Examples
        --------
        >>> client.alias("digits/mlp@v5", "production", yes=True)  # doctest: +SKIP
        <Alias digits/mlp@production: v4 → v5>
        """
        place = self._reference(name)
        check_alias(alias)
        now = None if yes else self._protected(place, alias)
        if now is not None:
            target = self.version(name)
            hint = f"`lmvp alias {target.reference} {alias} --yes` moves it"
            now.check_move(target.number, f"moved to {target.name}", hint)
        path = f"{model_path(place)}/aliases/{quote(alias, safe='')}"
        return self._connection.send_json("PUT", path, MoveAlias(revision=place.revision), Alias)

    def remove_alias(self, name: str, alias: str, *, yes: bool = False) -> None:
        """Remove an alias of a model. The history of its moves is preserved.

        Parameters
        ----------
        name : str
            `[project/]model`.
        alias : str
            The name of the alias.
        yes : bool, default False
            Confirm the removal of a protected alias.

        Raises
        ------
        NotFound
            If the alias does not exist.
        ProtectedAlias
            If the alias is protected and `yes` is False.

        Examples
        --------
        >>> client.remove_alias("digits/mlp", "candidate")  # doctest: +SKIP
        """
        place = self._reference(name)
        # `check_name`, not `check_alias`: an alias from before a name was reserved must be removable.
        path = f"{model_path(place)}/aliases/{quote(check_name(alias, 'alias'), safe='')}"
        now = None if yes else self._protected(place, alias)
        if now is not None:
            now.check_move(0, "removed", f"`lmvp alias {name} {alias} --remove --yes` removes it")
        self._connection.send("DELETE", path)

    def check_push(self, name: str, aliases: Sequence[str]) -> None:
        """Raise `ProtectedAlias` if a push with these aliases would move a protected alias.

        Parameters
        ----------
        name : str
            `[project/]model`. The model does not have to exist.
        aliases : sequence of str
            The aliases that the push would move to the new version.

        Raises
        ------
        ProtectedAlias
            If one of the aliases is protected and points at another version.
        """
        place = self._place(name)
        for alias in aliases:
            now = self._protected(place, alias)
            if now is not None:
                following = self._connection.get(model_path(place), Model).following
                hint = f"`lmvp push {name} FILE --alias {alias} --yes` moves it"
                now.check_move(0, f"moved to the new version v{following}", hint)

    def alias_history(self, name: str) -> Alias:
        """Return an alias with its history.

        Parameters
        ----------
        name : str
            `[project/]model@alias`.

        Returns
        -------
        Alias
            The alias. Each entry of its `moves` has the version, the time and the user.

        Raises
        ------
        NotFound
            If the alias does not exist.
        """
        place = self._reference(name)
        return self._connection.get(f"{model_path(place)}/aliases/{quote(check_alias(place.revision), safe='')}", Alias)

    def check_alias_name(self, name: str) -> tuple[Reference, Revision]:
        """Parse a reference that must name an alias.

        Parameters
        ----------
        name : str
            `[project/]model@alias`.

        Raises
        ------
        InvalidReference
            If it names no alias, for example because it is only the name of a model.
        """
        place = self._reference(name)
        revision = Revision.parse(place.revision)
        if revision.kind != "alias" or revision.back or revision.at is not None:
            raise InvalidReference(f"{name!r} names no alias", hint="digits/mlp@production")
        return place, revision

    def rollback(self, name: str, *, yes: bool = False) -> Alias:
        """Move an alias back to the version that it pointed at before its last move.

        The rollback is itself a move, so a second rollback undoes the first one. A protected alias requires maintainer.

        Parameters
        ----------
        name : str
            `[project/]model@alias`.
        yes : bool, default False
            Confirm the move of a protected alias.

        Returns
        -------
        Alias
            The alias, with the history of its moves in `moves`.

        Raises
        ------
        NotFound
            If the alias does not exist, or was never moved.
        ProtectedAlias
            If the alias is protected and `yes` is False.

        Examples
        --------
        >>> client.rollback("digits/mlp@production", yes=True)  # doctest: +SKIP
        """
        place, revision = self.check_alias_name(name)
        path = f"{model_path(place)}/aliases/{quote(revision.value, safe='')}"
        if not yes:
            now = self._connection.get(path, Alias)
            number = now.moves[-2].number if len(now.moves) > 1 else 0
            if number:  # without an earlier move, the request below fails with the message of the server
                hint = f"`lmvp rollback {name} --yes` moves it"
                now.check_move(number, f"moved back to v{number}", hint)
        return self._connection.send_json("PUT", path, MoveAlias(revision=f"{revision.value}@{{1}}"), Alias)

    def _protected(self, place: Reference, name: str) -> Alias | None:
        """Return an alias if it exists and is protected, otherwise None."""
        path = f"{model_path(place)}/aliases/{quote(name, safe='')}"
        try:
            found = self._connection.get(path, Alias)
        except NotFound:
            return None
        return found if found.protected else None

    def _place(self, name: str) -> Reference:
        place = self._reference(name)
        if "@" in name.rpartition("/")[2]:
            raise InvalidReference(
                f"{name!r} names a version, and a push creates a new one", hint=f"push to {name.partition('@')[0]!r}"
            )
        return place

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
