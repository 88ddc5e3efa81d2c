"""Conditions: all that a network is told beside the state and the time, one class a kind."""

from trilemma.interfaces.condition.condition import Condition as Condition
from trilemma.interfaces.condition.image import ImageCondition as ImageCondition
from trilemma.interfaces.condition.label import LABEL as LABEL
from trilemma.interfaces.condition.label import ClassCondition as ClassCondition
from trilemma.interfaces.condition.prepared import Prepared as Prepared
from trilemma.interfaces.condition.prepared import PreparedConditions as PreparedConditions
from trilemma.interfaces.condition.scalar import ScalarCondition as ScalarCondition
from trilemma.interfaces.condition.tables import conditions_from as conditions_from
from trilemma.interfaces.condition.text import TextCondition as TextCondition
