// Distributions of secrets, errors and noise, slot 0 apart.
#pragma once

#include "client_check.h"

namespace aegis::test {

void testNoise(Checker& checker);

}  // namespace aegis::test
