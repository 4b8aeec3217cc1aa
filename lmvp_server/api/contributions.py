"""Routes of contributions and forks."""

from __future__ import annotations

from lmvp.core import schemas
from lmvp_server.api.base import Handler
from lmvp_server.api.query import PAGE, Text
from lmvp_server.api.route import Cost, Route
from lmvp_server.services import access
from lmvp_server.services.contributions import STATUSES

STATUS: Text[str] = Text(
    name="status", description="Only contributions of this status. Without it: all.", choices=STATUSES
)


class ProjectContributionsHandler(
    Handler,
    path="/projects/{project}/contributions",
    routes=(
        Route(
            "GET",
            "List the contributions to a project.",
            schemas.Contribution,
            many=True,
            right=access.READ,
            public=True,
            query=(*PAGE, STATUS),
            cost=Cost.LONG,
            note="The newest comes first.",
            call=lambda services, caller, given: services.contributions.of_project(
                caller, given.project, given.page, given.status
            ),
        ),
    ),
):
    """The contributions to the models of a project."""


class ContributionHandler(
    Handler,
    path="/projects/{project}/models/{model}/contributions/{number}",
    routes=(
        Route(
            "GET",
            "Return one contribution.",
            schemas.Contribution,
            right=access.READ,
            public=True,
            note="Its files can be read as `…/versions/c12` until `until`; `deleted_at` states when they were deleted.",
            call=lambda services, caller, given: services.contributions.one(
                caller, given.project, given.model, given.number
            ),
        ),
    ),
):
    """One contribution."""


class AcceptHandler(
    Handler,
    path="/projects/{project}/models/{model}/contributions/{number}/accept",
    routes=(
        Route(
            "POST",
            "Accept a contribution as the next version.",
            schemas.Contribution,
            right=access.WRITE,
            note="409 if it is decided already, or does not meet the acceptance rule of the model.",
            call=lambda services, caller, given: services.contributions.accept(
                caller, given.project, given.model, given.number
            ),
        ),
    ),
):
    """Acceptance of a contribution."""


class DeclineHandler(
    Handler,
    path="/projects/{project}/models/{model}/contributions/{number}/decline",
    routes=(
        Route(
            "POST",
            "Decline a contribution with a reason.",
            schemas.Contribution,
            request=schemas.Words,
            right=access.WRITE,
            admission=access.READ,
            call=lambda services, caller, given: services.contributions.decline(
                caller, given.project, given.model, given.number, given.body.words
            ),
        ),
    ),
):
    """Refusal of a contribution."""


class WithdrawHandler(
    Handler,
    path="/projects/{project}/models/{model}/contributions/{number}/withdraw",
    routes=(
        Route(
            "POST",
            "Withdraw a contribution of the caller.",
            schemas.Contribution,
            right=access.PROPOSE,
            note="Only its author can withdraw it.",
            call=lambda services, caller, given: services.contributions.withdraw(
                caller, given.project, given.model, given.number
            ),
        ),
    ),
):
    """Withdrawal of a contribution."""


class CommentsHandler(
    Handler,
    path="/projects/{project}/models/{model}/contributions/{number}/comments",
    routes=(
        Route(
            "POST",
            "Add a comment to a contribution.",
            schemas.Contribution,
            request=schemas.Words,
            right=access.PROPOSE,
            admission=access.READ,
            call=lambda services, caller, given: services.contributions.comment(
                caller, given.project, given.model, given.number, given.body.words
            ),
        ),
    ),
):
    """The comments of a contribution."""


class ForkHandler(
    Handler,
    path="/projects/{project}/models/{model}/fork",
    routes=(
        Route(
            "POST",
            "Fork a model with its history to another project or name.",
            schemas.Model,
            request=schemas.Fork,
            status=201,
            right=access.READ,
            note="The caller also needs the right to write to the other project. 409 if it has a model of this name.",
            call=lambda services, caller, given: services.forks.fork(caller, given.project, given.model, given.body.to),
        ),
    ),
):
    """Forks of a model."""


class ContributeHandler(
    Handler,
    path="/projects/{project}/models/{model}/versions/{revision}/contribute",
    routes=(
        Route(
            "POST",
            "Propose a version of a fork to the model that was forked.",
            schemas.Version,
            request=schemas.Contribute,
            status=201,
            right=access.READ,
            note="409 if the model is not a fork.",
            call=lambda services, caller, given: services.forks.contribute(
                caller, given.project, given.model, given.revision, given.body.message
            ),
        ),
    ),
):
    """Contributions from a fork."""
