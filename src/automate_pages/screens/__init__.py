"""The screens: functions from a request to a page, one module for each tab."""
