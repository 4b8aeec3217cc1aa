"""Pages of the console. docs/console.md lists their URLs and common behavior."""

from lmvp_server.web.pages.account import Account
from lmvp_server.web.pages.admin import (
    AuditLog,
    Groups,
    Storage,
    Users,
)
from lmvp_server.web.pages.base import NoSuchPage
from lmvp_server.web.pages.data import File, Histograms, Live
from lmvp_server.web.pages.models import Model
from lmvp_server.web.pages.projects import (
    Activity,
    Contributions,
    Members,
    Project,
    Removed,
)
from lmvp_server.web.pages.runs import (
    Compare,
    Curves,
    Run,
    Runs,
)
from lmvp_server.web.pages.search import Search
from lmvp_server.web.pages.settings import ModelSettings, ProjectSettings, ServerSettings
from lmvp_server.web.pages.versions import Diff, FilePage, Version

__all__ = [
    "Account",
    "Activity",
    "AuditLog",
    "Compare",
    "Contributions",
    "Curves",
    "Diff",
    "File",
    "FilePage",
    "Groups",
    "Histograms",
    "Live",
    "Members",
    "Model",
    "ModelSettings",
    "NoSuchPage",
    "Project",
    "ProjectSettings",
    "Removed",
    "Run",
    "Runs",
    "Search",
    "ServerSettings",
    "Storage",
    "Users",
    "Version",
]
