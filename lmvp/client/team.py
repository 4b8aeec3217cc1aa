"""Methods of `Client` for accounts, groups, members, invitations, webhooks, tokens, identities and device logins."""

from __future__ import annotations

from collections.abc import Sequence

from lmvp.client._base import BaseClient
from lmvp.core.sanitize import as_json, quoted
from lmvp.core.schemas import (
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


class Team(BaseClient):
    """Base class of `Client` with the methods for accounts and access."""

    # -- accounts

    def me(self) -> User:
        """Return the account of this client's token.

        Returns
        -------
        User

        Raises
        ------
        NotAuthenticated
            If the client has no valid token.
        """
        return self._connection.get("/me", User)

    def users(self) -> list[User]:
        """Return all accounts of the server. Requires admin.

        Returns
        -------
        list of User

        Raises
        ------
        AccessDenied
            If the caller is not an admin.
        """
        return self._list("/users", User)

    def add_user(self, name: str, password: str = "", *, admin: bool = False, current_password: str = "") -> User:
        """Create an account. Requires admin.

        Parameters
        ----------
        name : str
            The name of the account.
        password : str, default ""
            A password of 10 to 200 characters. Empty: create a service account, which can only use tokens.
        admin : bool, default False
            Whether the account is an admin of the server.
        current_password : str, default ""
            The caller's password. An admin must give it to create another admin. The operator does not need it.

        Returns
        -------
        User
            The new account.

        Raises
        ------
        AlreadyExists
            If an account with this name exists. The comparison ignores case.
        AccessDenied
            If the caller is not an admin, or `current_password` is missing or wrong.

        Examples
        --------
        >>> client.add_user("ci-bot")  # doctest: +SKIP
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
        """Disable or enable an account, change its admin right, or set its password.

        An argument that is None leaves the field unchanged.

        Parameters
        ----------
        name : str
            The name of the account.
        disabled : bool, optional
            True disables the account and revokes its tokens, sessions, invitations and identities. False enables the
            account but does not restore them.
        admin : bool, optional
            Whether the account is an admin of the server.
        password : str, optional
            A new password of 10 to 200 characters. It revokes the tokens, sessions and invitations of the account,
            including the token of this client, and disconnects its identities at an OpenID provider.
        current_password : str, default ""
            The caller's password. It is required to set a password and to appoint an admin, except for the operator.
        keep_tokens : bool, default False
            Do not revoke tokens and invitations when the password changes.
        keep_identities : bool, default False
            Do not disconnect identities when the password changes.

        Returns
        -------
        User
            The account. Its `ended` has the numbers of revoked tokens, sessions, invitations and identities.

        Raises
        ------
        AccessDenied
            If the caller lacks the permission, or `current_password` is missing or wrong.
        NotFound
            If the account does not exist.
        TooManyRequests
            If too many wrong passwords were sent.

        Examples
        --------
        >>> client.change_user("grace", disabled=True)  # doctest: +SKIP
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
        """Return all groups with their users.

        Returns
        -------
        list of Group
        """
        return self._list("/groups", Group)

    def set_group(self, name: str, users: Sequence[str]) -> Group:
        """Create a group, or replace its users. Requires admin.

        Parameters
        ----------
        name : str
            The name of the group, without `@`.
        users : sequence of str
            The names of all users of the group. Other users are removed from it.

        Returns
        -------
        Group

        Raises
        ------
        NotFound
            If an account does not exist.
        AccessDenied
            If the caller is not an admin.

        Examples
        --------
        >>> client.set_group("vision", ["ada", "grace"])  # doctest: +SKIP
        """
        return self._connection.send_json("PUT", f"/groups/{quoted(name)}", SetGroup(users=tuple(users)), Group)

    def remove_group(self, name: str) -> None:
        """Remove a group and its roles in all projects. Requires admin.

        Parameters
        ----------
        name : str
            The name of the group, without `@`.

        Raises
        ------
        NotFound
            If the group does not exist.
        AccessDenied
            If the caller is not an admin.
        """
        self._connection.send("DELETE", f"/groups/{quoted(name)}")

    # -- members

    def members(self, project: str | None = None) -> list[Member]:
        """Return the members of a project and their roles: accounts first, then groups (`@vision`).

        Parameters
        ----------
        project : str, optional
            The project. Default: the current project.

        Returns
        -------
        list of Member
        """
        return self._list(f"{self._of(project)}/members", Member)

    def set_member(self, project: str, name: str, role: str) -> Member:
        """Set the role of an account or a group in a project. Requires owner.

        Parameters
        ----------
        project : str
            The project.
        name : str
            The name of the account, or of a group with `@` before it: `@vision`.
        role : {"viewer", "contributor", "maintainer", "owner"}
            The role; see docs/team.md.

        Returns
        -------
        Member

        Raises
        ------
        NotFound
            If the project, the account or the group does not exist.
        Conflict
            If the change would leave the project without an owner.
        AccessDenied
            If the caller is not an owner.

        Examples
        --------
        >>> client.set_member("digits", "@vision", "contributor")  # doctest: +SKIP
        """
        return self._connection.send_json(
            "PUT", f"{self._of(project)}/members/{quoted(name)}", SetRole(role=role), Member
        )

    def invite(self, project: str, role: str = "viewer", *, days: int = 7) -> Invitation:
        """Create an invitation to a project. Requires owner.

        The link in `url` works once. It gives one account the role in the project, and creates the account if
        necessary. The invitation is revoked when its creator is disabled or no longer owns the project.

        Parameters
        ----------
        project : str
            The project.
        role : {"viewer", "contributor", "maintainer", "owner"}, default "viewer"
            The role in the project.
        days : int, default 7
            The number of days for which the link works, 1 to 30.

        Returns
        -------
        Invitation
            The invitation with its `url`, which is a secret.

        Raises
        ------
        AccessDenied
            If the caller is not an owner.

        Examples
        --------
        >>> client.invite("digits", "contributor", days=3).url  # doctest: +SKIP
        """
        asked = Invite(project=project, role=role, days=days)
        return self._connection.send_json("POST", "/invitations", asked, Invitation)

    def invitations(self, project: str | None = None) -> list[Invitation]:
        """Return the invitations to the projects that the caller owns, without their secrets.

        Parameters
        ----------
        project : str, optional
            Return only the invitations to this project. Default: all.

        Returns
        -------
        list of Invitation
            The invitations. For an invitation that is no longer valid, `ended` contains the reason.
        """
        found = self._list("/invitations", Invitation)
        return [one for one in found if project is None or one.project.lower() == project.lower()]

    def revoke_invitation(self, invitation: str) -> None:
        """Revoke an invitation.

        Parameters
        ----------
        invitation : str
            The id of the invitation.
        """
        self._connection.send("DELETE", f"/invitations/{quoted(invitation)}")

    def remove_member(self, project: str, name: str) -> None:
        """Remove the role of an account or a group in a project.

        Requires owner. Every user can remove their own role.

        Parameters
        ----------
        project : str
            The project.
        name : str
            The name of the account, or of a group with `@` before it.

        Raises
        ------
        Conflict
            If the change would leave the project without an owner.
        AccessDenied
            If the caller is not an owner, and `name` is another account.
        """
        self._connection.send("DELETE", f"{self._of(project)}/members/{quoted(name)}")

    def change_project(
        self, project: str, *, description: str | None = None, public: bool | None = None, everyone: str | None = None
    ) -> Project:
        """Change the description and the visibility of a project. Requires owner.

        An argument that is None leaves the field unchanged.

        Parameters
        ----------
        project : str
            The project.
        description : str, optional
            The description of the project.
        public : bool, optional
            Whether the project can be read without an account.
        everyone : {"", "viewer", "contributor", "maintainer"}, optional
            The role that every account of the server has in the project. Empty: remove this role.

        Returns
        -------
        Project
            The project with the new values.

        Raises
        ------
        AccessDenied
            If the caller is not an owner.

        Examples
        --------
        >>> client.change_project("digits", everyone="viewer")  # doctest: +SKIP
        """
        change = ProjectChange(description=description, public=public, everyone=everyone)
        return self._connection.send_json("PATCH", self._of(project), change, Project)

    # -- webhooks

    def webhooks(self, project: str | None = None) -> list[Webhook]:
        """Return the webhooks of a project. Requires owner.

        Parameters
        ----------
        project : str, optional
            The project. Default: the current project.

        Returns
        -------
        list of Webhook
            The webhooks with the state of their deliveries, without their secrets.
        """
        return self._list(f"{self._of(project)}/webhooks", Webhook)

    def add_webhook(self, project: str, url: str, events: Sequence[str] = ()) -> MadeWebhook:
        """Add a webhook to a project. Requires owner.

        The server calls the URL after each new event that matches. docs/webhooks.md describes the requests.

        Parameters
        ----------
        project : str
            The project.
        url : str
            The URL to call.
        events : sequence of str, default ()
            Prefixes of the actions to send, for example `"version."` or `"alias.move"`. Empty: the actions that begin
            with `version.`, `model.`, `alias.`, `contribution.` or `run.`.

        Returns
        -------
        MadeWebhook
            The webhook with its secret, which signs the deliveries. The server does not show the secret again.

        Raises
        ------
        AccessDenied
            If the caller is not an owner, or the operator of the server does not allow the host (`--webhook-to`).

        Examples
        --------
        >>> client.add_webhook("digits", "https://hooks.example.org/lmvp", ["version."]).secret  # doctest: +SKIP
        """
        new = NewWebhook(url=url, events=tuple(events))
        return self._connection.send_json("POST", f"{self._of(project)}/webhooks", new, MadeWebhook)

    def remove_webhook(self, project: str, webhook: str) -> None:
        """Remove a webhook. Requires owner.

        Parameters
        ----------
        project : str
            The project.
        webhook : str
            The id of the webhook.
        """
        self._connection.send("DELETE", f"{self._of(project)}/webhooks/{quoted(webhook)}")

    def enable_webhook(self, project: str, webhook: str) -> Webhook:
        """Enable a disabled webhook. Requires owner.

        The delivery continues after the last event that arrived, so the events since then are sent too. After that, the
        webhook sends on behalf of the caller.

        Parameters
        ----------
        project : str
            The project.
        webhook : str
            The id of the webhook.

        Returns
        -------
        Webhook
        """
        return self._connection.send_json("POST", f"{self._of(project)}/webhooks/{quoted(webhook)}/enable", {}, Webhook)

    def test_webhook(self, project: str, webhook: str) -> Ping:
        """Send an event of type `ping` to a webhook now. Requires owner.

        Parameters
        ----------
        project : str
            The project.
        webhook : str
            The id of the webhook.

        Returns
        -------
        Ping
            The HTTP status of the response, or the error.
        """
        return self._connection.send_json("POST", f"{self._of(project)}/webhooks/{quoted(webhook)}/test", {}, Ping)

    # -- tokens

    def tokens(self) -> list[TokenRecord]:
        """Return the tokens of the caller, without their secrets. An admin gets the tokens of all accounts.

        Returns
        -------
        list of TokenRecord
        """
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
        """Create a token. Its secret is only in this response; the server stores a digest of it.

        Parameters
        ----------
        name : str
            A name that describes the purpose of the token.
        days : int, optional
            The number of days after which the token expires, 1 to 3,650. Default: it does not expire.
        scope : {"read", "write", "admin"}, default "read"
            The limit of the token. `write` has no access to members, accounts and the server. `admin` has all rights of
            the account.
        project : str, default ""
            The only project that the token can access. Empty: all projects.
        user : str, default ""
            The account of the token. Empty: the caller. Only an admin can create tokens for other accounts, for example
            for service accounts.
        current_password : str, default ""
            The caller's password. An admin must give it to create a token for another person.

        Returns
        -------
        NewToken
            The token with its secret.

        Raises
        ------
        AccessDenied
            If the token of this client cannot create tokens, or `current_password` is missing or wrong.

        Examples
        --------
        >>> client.create_token("ci", 90, scope="write", project="digits")  # doctest: +SKIP
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
        """Revoke a token.

        Parameters
        ----------
        token : str
            The id of the token; `tokens` lists it.

        Raises
        ------
        NotFound
            If the caller has no token with this id.
        """
        self._connection.send("DELETE", f"/tokens/{quoted(token)}")

    # -- identities

    def identities(self, user: str = "") -> list[IdentityRecord]:
        """Return the identities at an OpenID provider that are connected to the caller's account.

        An admin gets the identities of all accounts.

        Parameters
        ----------
        user : str, default ""
            Return only the identities of this account. Empty: all that the caller can read.

        Returns
        -------
        list of IdentityRecord

        Raises
        ------
        AccessDenied
            If the scope of the token is not `admin`, or `user` is another account and the caller is not an admin.
        """
        path = f"/identities?user={quoted(user)}" if user else "/identities"
        return self._list(path, IdentityRecord)

    def disconnect_identity(self, identity: str, *, current_password: str = "") -> None:
        """Disconnect an identity from its account, and revoke the sessions that it started.

        Parameters
        ----------
        identity : str
            The id of the identity; `identities` lists it.
        current_password : str, default ""
            The caller's password. The operator does not need it.

        Raises
        ------
        ProofRequired
            If `current_password` is missing or wrong.
        Conflict
            If the identity is the only way to sign in to the caller's account.
        """
        # The password is in the body, not in the query: proxies and servers log URLs.
        path, headers = f"/identities/{quoted(identity)}", {"Content-Type": "application/json"}
        body = as_json(Disconnect(current_password=current_password))
        self._connection.send("DELETE", path, data=body, headers=headers)

    # -- devices

    def decide_device(
        self, user_code: str, *, approve: bool, scope: str = "", current_password: str = ""
    ) -> DeviceDecision:
        """Approve or deny a client that requests a token by a device code.

        Parameters
        ----------
        user_code : str
            The code that the client shows.
        approve : bool
            True approves the request; False denies it.
        scope : {"", "read", "write", "admin"}, default ""
            The scope of the token, at most the requested scope. Empty: the requested scope, unless it is `admin`, which
            must be given explicitly.
        current_password : str, default ""
            The caller's password, if the server requires it for this approval.

        Returns
        -------
        DeviceDecision
            The decision with the name of the client.

        Raises
        ------
        NotFound
            If the code is unknown or expired.
        ProofRequired
            If the approval requires the password and it is missing.

        Examples
        --------
        >>> client.devices("BCDF-GHJK", approve=True)  # doctest: +SKIP
        """
        asked = Decide(user_code=user_code, approve=approve, scope=scope, current_password=current_password)
        return self._connection.send_json("POST", "/device/decision", asked, DeviceDecision)

    devices = decide_device

    def _of(self, project: str | None) -> str:
        return f"/projects/{quoted(project or self.project)}"
