"""Pages of the console. docs/console.md lists their URLs and common behavior."""

from lmvp_server.web.pages.account import AccountPage
from lmvp_server.web.pages.admin import (
    AuditLogPage,
    GroupsPage,
    StoragePage,
    UsersPage,
)
from lmvp_server.web.pages.base import UnknownPage
from lmvp_server.web.pages.data import PageFileHandler, PageHistogramsHandler, PageLiveHandler
from lmvp_server.web.pages.models import ModelPage
from lmvp_server.web.pages.projects import (
    ActivityPage,
    ContributionsPage,
    MembersPage,
    ProjectPage,
    TrashPage,
)
from lmvp_server.web.pages.runs import (
    ComparePage,
    PageCurvesHandler,
    RunPage,
    RunsPage,
)
from lmvp_server.web.pages.search import SearchPage
from lmvp_server.web.pages.settings import ModelSettingsPage, ProjectSettingsPage, ServerSettingsPage
from lmvp_server.web.pages.versions import DiffPage, FilePage, VersionPage

__all__ = [
    "AccountPage",
    "ActivityPage",
    "AuditLogPage",
    "ComparePage",
    "ContributionsPage",
    "DiffPage",
    "FilePage",
    "GroupsPage",
    "MembersPage",
    "ModelPage",
    "ModelSettingsPage",
    "PageCurvesHandler",
    "PageFileHandler",
    "PageHistogramsHandler",
    "PageLiveHandler",
    "ProjectPage",
    "ProjectSettingsPage",
    "RunPage",
    "RunsPage",
    "SearchPage",
    "ServerSettingsPage",
    "StoragePage",
    "TrashPage",
    "UnknownPage",
    "UsersPage",
    "VersionPage",
]
