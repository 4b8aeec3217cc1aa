"""The part of a client that is about people: accounts, groups, members of projects, tokens."""

from __future__ import annotations

from collections.abc import Sequence

from lmvp.base_client import BaseClient
from lmvp.records import (
    Decide,
    DeviceDecision,
    Disconnect,
    Group,
    IdentityRecord,
    Invitation,
    Invite,
    MadeWebhook,
    MakeToken,
    Member,
    NewToken,
    NewUser,
    NewWebhook,
    Ping,
    Project,
    ProjectChange,
    SetGroup,
    SetRole,
    TokenRecord,
    User,
    UserChange,
    Webhook,
)
from lmvp.text import as_json, quoted


class Team(BaseClient):
    """The verbs around people; `lmvp.Client` has them all."""

    # -- accounts

    def me(self) -> User:
        """Return the account that this client's token is of."""
        return self._connection.get("/me", User)

    def users(self) -> list[User]:
        """Return all accounts of the server; for admins."""
        return self._list("/users", User)

    def add_user(self, name: str, password: str = "", *, admin: bool = False, current_password: str = "") -> User:
        """Make an account; for admins.

        Parameters
        ----------
        password : str
            10 to 200 characters; without one it is a service account, which acts by tokens alone.
        current_password : str
            The caller's own password, which an admin needs to make another admin; the server's operator does not.

        Raises
        ------
        AlreadyExists
            If there is one of that name, whatever the case of its letters.
        """
        new = NewUser(name=name, password=password, admin=admin, current_password=current_password)
        return self._connection.send_json("POST", "/users", new, User)

    def change_user(
        self,
        name: str,
        *,
        disabled: bool | None = None,
        admin: bool | None = None,
        password: str | None = None,
        current_password: str = "",
        keep_tokens: bool = False,
        keep_identities: bool = False,
    ) -> User:
        """Disable or enable an account, make it an admin, or set its password; fields that are None stay as they are.

        Parameters
        ----------
        disabled : bool, optional
            A disabled account loses its tokens, sessions, invitations and identities; they do not come back when it is
            enabled.
        admin : bool, optional
            Whether it is an admin of the server.
        password : str, optional
            A new password, 10 to 200 characters. It ends the tokens, sessions and invitations of the account, the
            token of this client too, and disconnects its identities at an OpenID provider.
        current_password : str
            The caller's own password. It is needed to set a password and to make an admin; the server's operator does
            not need it.
        keep_tokens : bool
            Keep tokens and invitations at a new password.
        keep_identities : bool
            Keep connected identities at a new password.

        Returns
        -------
        User
            With the numbers of tokens, sessions, invitations and identities that ended, as `ended`.

        Raises
        ------
        AccessDenied
            If the caller lacks the right, or `current_password` is missing or wrong.
        TooManyRequests
            After too many wrong passwords.
        """
        change = UserChange(
            disabled=disabled,
            admin=admin,
            password=password,
            current_password=current_password,
            keep_tokens=keep_tokens,
            keep_identities=keep_identities,
        )
        return self._connection.send_json("PATCH", f"/users/{quoted(name)}", change, User)

    # -- groups

    def groups(self) -> list[Group]:
        """Return all groups, with those in them."""
        return self._list("/groups", Group)

    def set_group(self, name: str, users: Sequence[str]) -> Group:
        """Say who is in a group from now on; make it if it is new. For admins."""
        return self._connection.send_json("PUT", f"/groups/{quoted(name)}", SetGroup(users=tuple(users)), Group)

    def remove_group(self, name: str) -> None:
        """Take a group away, and the roles that it gave; for admins."""
        self._connection.send("DELETE", f"/groups/{quoted(name)}")

    # -- members

    def members(self, project: str | None = None) -> list[Member]:
        """Return who has which role in a project: people, then groups (`@vision`)."""
        return self._list(f"{self._of(project)}/members", Member)

    def set_member(self, project: str, name: str, role: str) -> Member:
        """Give a person, or a group (`@vision`), a role in a project; for its owners.

        Parameters
        ----------
        role : str
            `viewer`, `contributor`, `maintainer` or `owner`; see docs/team.md.

        Raises
        ------
        Conflict
            If the project would be left without an owner.
        """
        return self._connection.send_json(
            "PUT", f"{self._of(project)}/members/{quoted(name)}", SetRole(role=role), Member
        )

    def invite(self, project: str, role: str = "viewer", *, days: int = 7) -> Invitation:
        """Return an invitation: its `url` makes one account with a role in the project. For owners.

        It ends when its creator is disabled or does not own the project any more.

        Parameters
        ----------
        days : int
            How long it can be used, 1 to 30.
        """
        asked = Invite(project=project, role=role, days=days)
        return self._connection.send_json("POST", "/invitations", asked, Invitation)

    def invitations(self, project: str | None = None) -> list[Invitation]:
        """Return the invitations to the projects that the caller owns, or to one of them, without their secrets.

        An invitation that cannot be used any more says the reason in `ended`.
        """
        found = self._list("/invitations", Invitation)
        return [one for one in found if project is None or one.project.lower() == project.lower()]

    def revoke_invitation(self, invitation: str) -> None:
        """Revoke an invitation, named by its id."""
        self._connection.send("DELETE", f"/invitations/{quoted(invitation)}")

    def remove_member(self, project: str, name: str) -> None:
        """Take somebody's role in a project away; for its owners, and for oneself."""
        self._connection.send("DELETE", f"{self._of(project)}/members/{quoted(name)}")

    def change_project(
        self, project: str, *, description: str | None = None, public: bool | None = None, everyone: str | None = None
    ) -> Project:
        """Change what a project says of itself and who may see it; what is None stays as it is. For its owners.

        Parameters
        ----------
        public : bool
            Whether it is read without an account.
        everyone : str
            The role that each account has in it; empty: none.
        """
        change = ProjectChange(description=description, public=public, everyone=everyone)
        return self._connection.send_json("PATCH", self._of(project), change, Project)

    # -- webhooks

    def webhooks(self, project: str | None = None) -> list[Webhook]:
        """Return whom a project tells what happens in it; for its owners."""
        return self._list(f"{self._of(project)}/webhooks", Webhook)

    def add_webhook(self, project: str, url: str, events: Sequence[str] = ()) -> MadeWebhook:
        """Let a URL be told what happens in a project from now on; for its owners. docs/webhooks.md says how.

        Parameters
        ----------
        events : sequence of str
            What it is told, by the beginnings of actions: `"version."`, `"alias.move"`; none: all.

        Returns
        -------
        MadeWebhook
            With the secret that signs what is sent, shown this once.

        Raises
        ------
        AccessDenied
            If the server sends nothing to that host: whoever runs it says where webhooks may go.
        """
        new = NewWebhook(url=url, events=tuple(events))
        return self._connection.send_json("POST", f"{self._of(project)}/webhooks", new, MadeWebhook)

    def remove_webhook(self, project: str, webhook: str) -> None:
        """Take a webhook away, by its id."""
        self._connection.send("DELETE", f"{self._of(project)}/webhooks/{quoted(webhook)}")

    def enable_webhook(self, project: str, webhook: str) -> Webhook:
        """Wake a webhook that was given up; it is told what happened since."""
        return self._connection.send_json("POST", f"{self._of(project)}/webhooks/{quoted(webhook)}/enable", {}, Webhook)

    def test_webhook(self, project: str, webhook: str) -> Ping:
        """Send something to a webhook now, and return what came of it."""
        return self._connection.send_json("POST", f"{self._of(project)}/webhooks/{quoted(webhook)}/test", {}, Ping)

    # -- tokens

    def tokens(self) -> list[TokenRecord]:
        """Return what is known of one's tokens, without their secrets; an admin sees all."""
        return self._list("/tokens", TokenRecord)

    def create_token(
        self,
        name: str,
        days: int | None = None,
        *,
        scope: str = "read",
        project: str = "",
        user: str = "",
        current_password: str = "",
    ) -> NewToken:
        """Make a token; only this answer has its secret.

        Parameters
        ----------
        days : int, optional
            It expires after so many; never, without it.
        scope : str
            `read` (default); `write`, all but members, accounts and the server; `admin`, all rights of its account.
        project : str
            The one project that it is for; all, without it.
        user : str
            Whose it is: an admin makes tokens for service accounts.
        current_password : str
            The caller's own password, which an admin needs to make a token for another person.
        """
        asked = MakeToken(
            name=name,
            expires_days=days,
            scope=scope or "read",
            project=project,
            user=user,
            current_password=current_password,
        )
        return self._connection.send_json("POST", "/tokens", asked, NewToken)

    def revoke_token(self, token: str) -> None:
        """Revoke a token, named by its id."""
        self._connection.send("DELETE", f"/tokens/{quoted(token)}")

    # -- identities

    def identities(self, user: str = "") -> list[IdentityRecord]:
        """Return the identities at an OpenID provider that sign in to the caller's account; an admin sees all.

        Parameters
        ----------
        user : str
            Only those of this account.

        Raises
        ------
        AccessDenied
            If the token is limited, or the account is another one's and the caller is no admin.
        """
        path = f"/identities?user={quoted(user)}" if user else "/identities"
        return self._list(path, IdentityRecord)

    def disconnect_identity(self, identity: str, *, current_password: str = "") -> None:
        """Disconnect an identity from its account, and end the sessions that it began.

        Parameters
        ----------
        identity : str
            The id of the identity; `identities` lists it.
        current_password : str
            The caller's own password; the server's operator does not need it.

        Raises
        ------
        ProofRequired
            If `current_password` is missing or wrong.
        Conflict
            If it is the only way to sign in to the caller's own account.
        """
        path, headers = f"/identities/{quoted(identity)}", {"Content-Type": "application/json"}
        body = as_json(Disconnect(current_password=current_password))
        self._connection.send("DELETE", path, data=body, headers=headers)

    # -- devices

    def decide_device(
        self, user_code: str, *, approve: bool, scope: str = "", current_password: str = ""
    ) -> DeviceDecision:
        """Approve or deny a client that waits for a token under a code.

        Parameters
        ----------
        scope : str
            The scope of its token, at most the one that it asks for. Empty: that one, unless it is `admin`, which must
            be named.
        current_password : str
            One's own password, as a proof; the server says whether it needs one.

        Raises
        ------
        ProofRequired
            If an approval lacks its proof.
        """
        asked = Decide(user_code=user_code, approve=approve, scope=scope, current_password=current_password)
        return self._connection.send_json("POST", "/device/decision", asked, DeviceDecision)

    devices = decide_device

    def _of(self, project: str | None) -> str:
        return f"/projects/{quoted(project or self.project)}"
