// include/pf_client_api.h on top of the C API.

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>

#include "base/units.hpp"
#include "client/pf_conf.hpp"
#include "pf_client_api.h"

struct PfClientVolume {
    ~PfClientVolume() {
        pfbd_close(volume);
        pfbd_context_destroy(context);
    }
    pfbd_context* context = nullptr;
    pfbd_volume* volume = nullptr;  // NULL if half open
    uint64_t size_bytes = 0;
};

namespace {

constexpr const char* default_file = "/etc/pureflash/pf.conf";
constexpr size_t max_vector_bytes = 128u << 10;

// A file that was named must be there; the default one need not, if the environment says it all.
int read_configuration(const char* file_name, pf::client::PfConf& configuration) {
    const char* environment = std::getenv("PF_CONDUCTOR");
    const bool from_environment = environment != nullptr && *environment != '\0';
    std::ifstream file(file_name != nullptr ? file_name : default_file);
    if (!file && (file_name != nullptr || !from_environment)) return -ENOENT;
    const std::string text(std::istreambuf_iterator<char>(file), {});
    configuration = pf::client::parse_pf_conf(text);
    if (from_environment) configuration.conductor = environment;
    return configuration.conductor.empty() ? -EDESTADDRREQ : 0;
}

using ContextPtr = std::unique_ptr<pfbd_context, decltype(&pfbd_context_destroy)>;

int make_context(const char* file_name, ContextPtr& context) {
    pf::client::PfConf configuration;
    if (const int failed = read_configuration(file_name, configuration); failed != 0) return failed;
    pfbd_options options{};
    options.struct_bytes = sizeof(options);
    options.conductor = configuration.conductor.c_str();
    options.depth = configuration.depth;
    options.io_timeout_ms = configuration.timeout_s * 1000;
    pfbd_context* made = nullptr;
    const int failed = pfbd_context_create(&options, &made);
    context.reset(made);
    return failed;
}

int check_arguments(const char* volume_name, const char* snap_name) {
    if (volume_name == nullptr) return -EINVAL;
    return snap_name != nullptr && *snap_name != '\0' ? -ENOTSUP : 0;
}

PfClientVolume* refuse(int error) {
    errno = -error;
    return nullptr;
}

// Opens, fills `info`, and leaves the volume open only for I/O.
PfClientVolume* open_with(const char* volume_name, const char* cfg_filename, const char* snap_name,
                          bool for_io, pfbd_info& info) {
    if (const int bad = check_arguments(volume_name, snap_name); bad != 0) return refuse(bad);
    ContextPtr context(nullptr, &pfbd_context_destroy);
    if (const int failed = make_context(cfg_filename, context); failed != 0) return refuse(failed);
    auto opened = std::make_unique<PfClientVolume>();
    opened->context = context.release();
    const uint32_t flags = for_io ? 0 : uint32_t{PFBD_READ_ONLY};
    if (const int failed = pfbd_open(opened->context, volume_name, flags, &opened->volume);
        failed != 0) {
        return refuse(failed);
    }
    if (const int failed = pfbd_get_info(opened->volume, &info); failed != 0) return refuse(failed);
    opened->size_bytes = info.size_bytes;
    if (!for_io) {
        pfbd_close(opened->volume);
        opened->volume = nullptr;
    }
    return opened.release();
}

void copy_name(char* to, const char* from) {
    const size_t length = std::min(std::string_view(from).size(), size_t{PF_MAX_NAME_LEN - 1});
    std::copy_n(from, length, to);
    to[length] = '\0';
}

}  // namespace

extern "C" {

PfClientVolume* pf_open_volume(const char* volume_name, const char* cfg_filename,
                               const char* snap_name, int lib_ver) {
    if (lib_ver != S5_LIB_VER) return refuse(-EINVAL);
    pfbd_info info{};
    return open_with(volume_name, cfg_filename, snap_name, true, info);
}

PfClientVolume* pf_half_open_volume(const char* volume_name, const char* cfg_filename,
                                    const char* snap_name, int /*lib_ver*/) {
    pfbd_info info{};
    return open_with(volume_name, cfg_filename, snap_name, false, info);
}

int pf_query_volume_info(const char* volume_name, const char* cfg_filename, const char* snap_name,
                         int lib_ver, PfClientVolumeInfo* volume) {
    if (volume == nullptr || lib_ver != S5_LIB_VER) return -EINVAL;
    pfbd_info info{};
    const std::unique_ptr<PfClientVolume> opened(
        open_with(volume_name, cfg_filename, snap_name, false, info));
    if (opened == nullptr) return -errno;
    *volume = {};
    volume->status[0] = 'O';
    volume->status[1] = 'K';
    copy_name(volume->volume_name, volume_name);
    volume->volume_size = info.size_bytes;
    volume->volume_id = info.volume_id;
    volume->shard_count = static_cast<int>(info.shard_count);
    volume->rep_count = static_cast<int>(info.replicas);
    return 0;
}

uint64_t pf_get_volume_size(PfClientVolume* volume) {
    return volume->size_bytes;
}

void pf_close_volume(PfClientVolume* volume) {
    // Inside a callback neither the volume nor its context ends: both stay as they are.
    if (volume != nullptr && pfbd_close(volume->volume) == -EDEADLK) return;
    if (volume != nullptr) volume->volume = nullptr;
    delete volume;
}

const char* show_ver(void) {
    return pfbd_version();
}

int pf_io_submit(PfClientVolume* volume, void* buf, size_t length, off_t offset,
                 ulp_io_handler callback, void* cbk_arg, int is_write) {
    if (volume->volume == nullptr || offset < 0) return -EINVAL;
    const auto at = static_cast<uint64_t>(offset);
    return is_write != 0 ? pfbd_write(volume->volume, buf, length, at, callback, cbk_arg)
                         : pfbd_read(volume->volume, buf, length, at, callback, cbk_arg);
}

int pf_iov_submit(PfClientVolume* volume, const iovec* iov, unsigned int iov_cnt, size_t length,
                  off_t offset, ulp_io_handler callback, void* cbk_arg, int is_write) {
    if (volume->volume == nullptr || offset < 0 || iov == nullptr || iov_cnt == 0 ||
        iov_cnt > 1024 || length > max_vector_bytes)
        return -EINVAL;
    size_t total = 0;
    for (unsigned int i = 0; i < iov_cnt; ++i) {
        if (__builtin_add_overflow(total, iov[i].iov_len, &total)) return -EINVAL;
    }
    if (total != length) return -EINVAL;
    const auto at = static_cast<uint64_t>(offset);
    const auto count = static_cast<int>(iov_cnt);
    return is_write != 0 ? pfbd_writev(volume->volume, iov, count, at, callback, cbk_arg)
                         : pfbd_readv(volume->volume, iov, count, at, callback, cbk_arg);
}

int pf_create_tenant(const char* tenant_name, const char* cfg_filename) {
    if (tenant_name == nullptr || !pf::check_volume_name(tenant_name)) return -EINVAL;
    pf::client::PfConf configuration;
    return read_configuration(cfg_filename, configuration);
}

int pf_rename_volume(const char* volume_name, const char* new_name, const char* cfg_filename) {
    ContextPtr context(nullptr, &pfbd_context_destroy);
    if (const int failed = make_context(cfg_filename, context); failed != 0) return failed;
    return pfbd_volume_rename(context.get(), volume_name, new_name);
}

int pf_delete_volume(const char* volume_name, const char* cfg_filename) {
    ContextPtr context(nullptr, &pfbd_context_destroy);
    if (const int failed = make_context(cfg_filename, context); failed != 0) return failed;
    return pfbd_volume_delete(context.get(), volume_name, 0);
}

}  // extern "C"
