// Where the MPI module is, and the line for the signal handler (internal to channels/mpi).
#pragma once

#include <string>

#include "channels/mpi/module.h"

namespace aegis {

// nullptr if there is none; `why` says so.
const AegisMpi* loadMpi(std::string& why);
void setPending(const std::string& line);
void setActive(const AegisMpi* api);  // null: the MPI job is over

}  // namespace aegis
