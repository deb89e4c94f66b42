"""What GitHub deploys as (infra/github.bicep)."""

import re

from tests.infra import compiler
from tests.infra.roles import ROLES
from tests.infra.variants import D365, INFRA

ACCESS_ADMINISTRATOR = "f58310d9-a9f6-439a-9e8d-f62e7b41a168"


def assignments(template: str, parameters: dict[str, str]) -> dict[str, dict[str, str]]:
    """The id of each role that a template assigns, with the assignment's properties."""
    resources = compiler.snapshot(INFRA / template, parameters).resources
    return {
        each["properties"]["roleDefinitionId"].rpartition("/")[2]: each["properties"]
        for each in resources
        if each["type"] == "Microsoft.Authorization/roleAssignments"
    }


@compiler.needed
def test_it_may_assign_the_roles_that_the_deployment_assigns_and_no_others() -> None:
    """To applications alone."""
    condition = assignments("github.bicep", {"repository": "owner/name"})[ACCESS_ADMINISTRATOR][
        "condition"
    ]
    clauses = re.findall(
        r"ActionMatches\{'Microsoft.Authorization/roleAssignments/(\w+)'\}\)\) OR "
        r"\(@(\w+)\[Microsoft.Authorization/roleAssignments:RoleDefinitionId\] "
        r"ForAnyOfAnyValues:GuidEquals \{(.*?)\} "
        r"AND @(\w+)\[Microsoft.Authorization/roleAssignments:PrincipalType\] "
        r"ForAnyOfAnyValues:StringEqualsIgnoreCase \{'ServicePrincipal'\}\)\)",
        condition,
    )
    assert [(action, of, also) for action, of, _, also in clauses] == [
        ("write", "Request", "Request"),
        ("delete", "Resource", "Resource"),
    ]
    assigned = assignments("main.bicep", {"d365Url": D365})
    assert {role for role in assigned if role in ROLES} == set(assigned)
    for _, _, roles, _ in clauses:
        assert set(roles.split(", ")) == set(assigned)


@compiler.needed
def test_it_trusts_the_jobs_of_one_environment() -> None:
    """Not every job of the repository: an environment can have reviewers."""
    resources = compiler.snapshot(INFRA / "github.bicep", {"repository": "owner/name"}).resources
    trust = next(
        each for each in resources if each["type"].endswith("federatedIdentityCredentials")
    )
    assert trust["properties"]["subject"] == "repo:owner/name:environment:production"
