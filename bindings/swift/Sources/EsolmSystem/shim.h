#include <esolm.h>
