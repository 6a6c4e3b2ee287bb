#include "addon/task.h"

#include <chrono>
#include <mutex>
#include <new>
#include <stdexcept>
#include <utility>

#include "support/error.h"

namespace aegis::addon {
namespace {

constexpr auto kProgressPeriod = std::chrono::milliseconds(50);

struct Report {
  double fraction = 0;
  char detail[120] = {};  // cut: progress is for people
};

class Task final : public Napi::AsyncProgressWorker<Report> {
 public:
  Task(Napi::Env env, const Napi::Value& onProgress, Work work, std::shared_ptr<std::atomic<bool>> cancelled,
       const Napi::Value& onWarning)
      : AsyncProgressWorker(env), deferred_(Napi::Promise::Deferred::New(env)), work_(std::move(work)),
        cancelled_(std::move(cancelled)) {
    if (onProgress.IsFunction()) onProgress_ = Napi::Persistent(onProgress.As<Napi::Function>());
    if (onWarning.IsFunction()) onWarning_ = Napi::Persistent(onWarning.As<Napi::Function>());
  }

  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute(const ExecutionProgress& channel) override {
    Progress progress;
    progress.cancelled = cancelled_.get();
    auto last = std::chrono::steady_clock::now() - kProgressPeriod;
    progress.report = [&](const std::string& detail, uint64_t done, uint64_t total) {
      const auto now = std::chrono::steady_clock::now();
      if (now - last < kProgressPeriod) return;
      last = now;
      Report report;
      report.fraction = total == 0 ? 1 : double(done) / double(total);
      detail.copy(report.detail, sizeof report.detail - 1);
      channel.Send(&report, 1);
    };
    progress.warn = [&](const std::string& code, const std::string& message) {
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        pending_.emplace_back(code, message);
      }
      channel.Signal();
    };
    try {
      convert_ = work_(progress);
      return;
    } catch (const Error& error) {
      fail(error.code(), error.what(), error.help());
      others_ = error.others();
    } catch (const std::bad_alloc&) {
      fail("R501", "the machine has too little memory", "");
    } catch (const std::exception& error) {
      fail("R500", error.what(), "this is a bug in aegis: please report it");
    } catch (...) {
      fail("R500", "unknown exception", "this is a bug in aegis: please report it");
    }
    SetError(message_);
  }

  void OnProgress(const Report* report, size_t count) override {
    deliverWarnings();
    if (count == 0 || onProgress_.IsEmpty()) return;
    const Napi::HandleScope scope(Env());
    onProgress_.Call({Napi::Number::New(Env(), report[count - 1].fraction),
                      Napi::String::New(Env(), report[count - 1].detail)});
  }

  void OnOK() override {
    const Napi::HandleScope scope(Env());
    deliverWarnings();
    try {
      deferred_.Resolve(convert_(Env()));
    } catch (const Napi::Error& error) {  // no memory for the result
      deferred_.Reject(error.Value());
    }
  }

  void OnError(const Napi::Error&) override {
    const Napi::HandleScope scope(Env());
    deliverWarnings();
    const Napi::Object error = errorObject(code_, message_, help_);
    const Napi::Array others = Napi::Array::New(Env());
    for (const Error& other : others_)
      others.Set(others.Length(), errorObject(other.code(), other.what(), other.help()));
    error.Set("others", others);
    deferred_.Reject(error);
  }

 private:
  void deliverWarnings() {
    std::vector<std::pair<std::string, std::string>> warnings;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      warnings.swap(pending_);
    }
    if (onWarning_.IsEmpty()) return;
    const Napi::HandleScope scope(Env());
    for (const auto& [code, message] : warnings)
      onWarning_.Call({Napi::String::New(Env(), code), Napi::String::New(Env(), message)});
  }

  Napi::Object errorObject(const std::string& code, const std::string& message, const std::string& help) {
    const Napi::Object error = Napi::Error::New(Env(), message).Value();
    error.Set("code", code);
    if (!help.empty()) error.Set("help", help);
    return error;
  }

  void fail(const std::string& code, const std::string& message, const std::string& help) {
    code_ = code;
    message_ = message.empty() ? "failed" : message;
    help_ = help;
  }

  Napi::Promise::Deferred deferred_;
  Napi::FunctionReference onProgress_, onWarning_;
  std::mutex mutex_;
  std::vector<std::pair<std::string, std::string>> pending_;  // warnings, guarded by mutex_
  Work work_;
  Convert convert_;
  std::shared_ptr<std::atomic<bool>> cancelled_;
  std::string code_, message_, help_;
  std::vector<Error> others_;  // of other ranks
};

}  // namespace

Napi::Value startTask(Napi::Env env, const Napi::Value& onProgress, Work work,
                      const Napi::Value& onWarning) {
  auto cancelled = std::make_shared<std::atomic<bool>>(false);
  auto* task = new Task(env, onProgress, std::move(work), cancelled, onWarning);  // deletes itself when done
  const Napi::Object handle = Napi::Object::New(env);
  handle.Set("promise", task->promise());
  handle.Set("cancel",
             Napi::Function::New(env, [cancelled](const Napi::CallbackInfo&) { *cancelled = true; }));
  task->Queue();
  return handle;
}

std::string stringField(const Napi::Object& options, const char* name) {
  const Napi::Value value = options.Get(name);
  if (!value.IsString()) throw Napi::TypeError::New(options.Env(), std::string(name) + " must be a string");
  return value.As<Napi::String>().Utf8Value();
}

std::string stringField(const Napi::Object& options, const char* name, const std::string& fallback) {
  return options.Get(name).IsUndefined() ? fallback : stringField(options, name);
}

uint32_t countField(const Napi::Object& options, const char* name, uint32_t fallback) {
  const Napi::Value value = options.Get(name);
  if (value.IsUndefined()) return fallback;
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
  if (!(number >= 0 && number <= 4096) || number != double(uint32_t(number)))
    throw Napi::RangeError::New(options.Env(), std::string(name) + " must be a whole number from 0 to 4096");
  return uint32_t(number);
}

}  // namespace aegis::addon
