"""Whole models: ``accelerate`` and what it has done, ``compare``, and a small click network with weights."""

from fastprompt._pruning import prompt as prompt
from fastprompt._switches import disabled as disabled
from fastprompt.models.comparison import compare as compare
from fastprompt.models.pretrained import tiny_click as tiny_click
from fastprompt.models.swapping import Report as Report
from fastprompt.models.swapping import accelerate as accelerate
from fastprompt.models.swapping import report as report
from fastprompt.models.swapping import restore as restore
from fastprompt.models.swapping import undo as undo
