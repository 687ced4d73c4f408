// Holds a mounted tray against a model: every answered operation is there, every unanswered one is
// there whole or not at all, every checksum is good, and the space adds up exactly.
#pragma once

#include <string>

#include "runtime/task.hpp"
#include "tray/tray.hpp"
#include "tray_model.hpp"

namespace pf::test {

// Checks, and settles the model: what the tray decided about operations in flight becomes the
// model's state. An empty string is a pass; else what is wrong, for people. Waits long enough
// (virtual time) for an idle tray to confirm its tail, so that held blocks are free again.
[[nodiscard]] runtime::Task<std::string> check_and_settle(tray::Tray& tray, TrayModel& model);

}  // namespace pf::test
