// Telling systemd (Type=notify) how the daemon is; nothing happens without it.
#pragma once

namespace pf::tools {

// "READY=1", "STOPPING=1".
void notify_service_manager(const char* state) noexcept;

}  // namespace pf::tools
