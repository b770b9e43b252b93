"""Several methods on one problem, several times: who gets how far, in which time, at which cost.

entrant     what is compared: a method with its settings
folder      the files of a comparison, and the runs that belong to it
running     the runs, each in a process of its own
outcome     what is left of a run
score       one row of numbers per method
curves      figures
page        the report
profiles    methods over a whole collection of problems, as performance and data profiles
"""
