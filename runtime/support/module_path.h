// Where the optional parts of the runtime are: shared libraries that are loaded when asked for.
#pragma once

#include <string>

namespace aegis {

// `file` beside the program or addon that this code is in, unless environment variable `variable` names
// another path.
std::string modulePath(const char* variable, const char* file);

}  // namespace aegis
