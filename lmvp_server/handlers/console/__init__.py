"""Pages of the console. docs/console.md lists their URLs and common behavior."""

from lmvp_server.handlers.console.account import Account
from lmvp_server.handlers.console.admin import AuditLog, Groups, Storage, Users
from lmvp_server.handlers.console.base import NoSuchPage
from lmvp_server.handlers.console.data import File, Histograms, Live
from lmvp_server.handlers.console.models import Model
from lmvp_server.handlers.console.projects import Activity, Contributions, Members, Project, Removed
from lmvp_server.handlers.console.runs import Compare, Curves, Run, Runs
from lmvp_server.handlers.console.search import Search
from lmvp_server.handlers.console.settings import ModelSettings, ProjectSettings, ServerSettings
from lmvp_server.handlers.console.versions import Diff, FilePage, Version

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
