// Work away from the JavaScript thread: { promise, cancel }. The promise is rejected with an Error that has
// `code` and `help` fields; progress arrives as callback(fraction, detail).
#pragma once

#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>
#include <string>

#include "client/context.h"

namespace aegis::addon {

// Makes the JavaScript result, on the JavaScript thread.
using Convert = std::function<Napi::Value(Napi::Env)>;
// Runs on a thread of the pool; throws aegis::Error.
using Work = std::function<Convert(const Progress&)>;

// onProgress, onWarning: functions, or undefined. Warnings arrive as callback(code, message), all of them
// before the promise is settled.
Napi::Value startTask(Napi::Env env, const Napi::Value& onProgress, Work work,
                      const Napi::Value& onWarning = {});

// Fields of an options object; a missing or mistyped one is a TypeError (the TypeScript wrapper never lets it
// happen).
std::string stringField(const Napi::Object& options, const char* name);
std::string stringField(const Napi::Object& options, const char* name, const std::string& fallback);
uint32_t countField(const Napi::Object& options, const char* name, uint32_t fallback);

}  // namespace aegis::addon
