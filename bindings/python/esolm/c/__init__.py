"""esolm.h for ctypes: constants, structs and functions under their names in C. The package's own; programs need none of it."""

from .constants import *
from .functions import library as library
from .structs import *
