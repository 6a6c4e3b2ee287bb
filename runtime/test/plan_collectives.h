// Hostile plans for several ranks: collectives, parts of keys and ports, predictions.
#pragma once

#include "test/client_check.h"

namespace aegis::test {

void checkCollectiveChecks(Checker& checker);

}  // namespace aegis::test
