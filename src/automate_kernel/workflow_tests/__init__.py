"""Tests of workflows: a kit that skips time, and files with cases for `automate workflow test`."""

from automate_kernel.workflow_tests.case import CaseResult
from automate_kernel.workflow_tests.file import CaseFile, find_case_files, load_case_file
from automate_kernel.workflow_tests.kit import WorkflowTest

__all__ = ["CaseFile", "CaseResult", "WorkflowTest", "find_case_files", "load_case_file"]
