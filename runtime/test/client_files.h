// Checks of runtime/io: the safetensors reader's refusals, files whole or not at all.
#pragma once

#include <string>

#include "client_check.h"

namespace aegis::test {

void testFiles(Checker& checker, const std::string& directory);

}  // namespace aegis::test
