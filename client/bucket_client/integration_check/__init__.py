"""Checks an integration of Bucket: runs its command against a server through a proxy that records and injects faults.

It judges only what can be seen from outside. It never reads the code of the integration, and keeps no credential.
"""

from bucket_client.integration_check.checks import check_integration
from bucket_client.integration_check.definition import DefinitionError, IntegrationDefinition, load_definition
from bucket_client.integration_check.report import CheckResult, IntegrationReport, Outcome
from bucket_client.integration_check.scenarios import Scenario, ScenarioTimes

__all__ = [
    "CheckResult",
    "DefinitionError",
    "IntegrationDefinition",
    "IntegrationReport",
    "Outcome",
    "Scenario",
    "ScenarioTimes",
    "check_integration",
    "load_definition",
]
