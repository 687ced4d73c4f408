// pfbd: attaches volumes to this host.
//   pfbd nbd NAME (--socket PATH | --listen HOST:PORT)   serves a volume over NBD
#include <cstdio>

#include "client/conductor_address.hpp"
#include "tools/command_line.hpp"
#include "tools/nbd_daemon.hpp"

using namespace pf;

namespace {

// The volume of a cluster, opened through its conductor.
class ClusterSource : public tools::VolumeSource {
  public:
    explicit ClusterSource(runtime::Address conductor) : conductor_(std::move(conductor)) {}

    runtime::Task<Result<client::Volume*>> open(std::string name, bool read_only) override {
        client::ClusterOptions options;
        options.conductor = conductor_;
        options.client_name = "pfbd nbd " + name;
        options.depth = 256;
        PF_CO_TRY_ASSIGN(cluster_, client::Cluster::create(options));
        auto volume = co_await cluster_->open(name, read_only, false);
        if (!volume) co_return std::unexpected(std::move(volume).error());
        volume_ = std::move(*volume);
        co_return volume_.get();
    }
    runtime::Task<void> close() override {
        if (volume_ != nullptr) {
            // The process ends either way, and everything acked is durable.
            (void)co_await volume_->close();
            volume_.reset();
        }
        if (cluster_ != nullptr) co_await cluster_->close();
        cluster_.reset();
    }

  private:
    runtime::Address conductor_;
    std::unique_ptr<client::Cluster> cluster_;
    std::unique_ptr<client::Volume> volume_;
};

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("Attaches PureFlash volumes to this host", "pfbd");
    app.set_version_flag("--version", PUREFLASH_VERSION);
    app.require_subcommand(1);

    tools::NbdArguments arguments;
    std::string conductor;

    CLI::App* nbd = app.add_subcommand("nbd", "Serves a volume over NBD until SIGTERM");
    nbd->add_option("NAME", arguments.name, "Name of the volume")->required();
    CLI::Option* socket =
        nbd->add_option("--socket", arguments.socket, "Path of a Unix socket to listen on");
    CLI::Option* listen =
        nbd->add_option("--listen", arguments.listen, "HOST:PORT to listen on; port 0: any free");
    socket->excludes(listen);
    nbd->add_flag("--read-only", arguments.read_only, "Refuse every write");
    nbd->add_flag("--insecure-listen", arguments.insecure_listen,
                  "Allow an address that other machines reach; there is no authentication");
    nbd->add_option("--conductor", conductor,
                    "HOST:PORT of the conductor (default: PF_CONDUCTOR, then 127.0.0.1:49180)");
    if (const auto over = pf::tools::parse_command_line(app, argc, argv)) return *over;

    const auto address = client::conductor_address(conductor.c_str());
    if (!address) {
        (void)std::fprintf(stderr, "pfbd: %s\n", address.error().text().c_str());
        return 2;
    }
    return tools::run_nbd(arguments, [&] { return std::make_unique<ClusterSource>(*address); });
}
