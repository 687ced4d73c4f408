#include "nemesis.hpp"

namespace pf::test {

using namespace runtime::sim;
using runtime::Nanos;

const std::array<const char*, trouble_count> trouble_names = {
    "store killed",    "store lost power",  "store stopped", "conductor killed", "client killed",
    "client stopped",  "connections reset", "partition",     "one-way cut",      "late segments",
    "bytes corrupted", "slow disk",         "random resets", "wrong reads"};

Nemesis::Nemesis(SimCluster& cluster, std::vector<std::unique_ptr<SimClient>>& clients,
                 Oracle& oracle, TroubleTally& tally, uint64_t seed, bool corrupts)
    : cluster_(cluster),
      clients_(clients),
      oracle_(oracle),
      tally_(tally),
      rng_(seed),
      corrupts_(corrupts),
      calm_(cluster.sim().network().model()) {}

void Nemesis::run_until(Nanos end) {
    end_ = end;
    next();
}

void Nemesis::next() {
    const Nanos pause = rng_.between(5, 400) * runtime::milliseconds;
    if (cluster_.sim().now() + pause >= end_) return;
    cluster_.sim().after(pause, [this] {
        if (cluster_.sim().now() >= end_) return;
        // Some kinds more often than others: what the store survives is the heart of it.
        static constexpr std::array<uint8_t, trouble_count> weights = {20, 20, 8,  4,  10, 4, 10,
                                                                       5,  5,  20, 16, 5,  4, 8};
        uint64_t dice = rng_.below(139);
        size_t kind = 0;
        while (dice >= weights[kind]) dice -= weights[kind++];
        make(static_cast<Trouble>(kind));
        next();
    });
}

Nanos Nemesis::draw_duration(Nanos longest) {
    const Nanos limit = rng_.below(3) == 0 ? longest : longest / 20;
    return rng_.between(1, limit / runtime::microseconds) * runtime::microseconds;
}

std::pair<SimNode*, SimNode*> Nemesis::draw_pair() {
    SimNode* client = &clients_[rng_.below(clients_.size())]->node();
    switch (rng_.below(4)) {
        case 0:
            return {client, &cluster_.conductor_node()};
        case 1:
            return {&cluster_.store_node(), &cluster_.conductor_node()};
        default:
            return {client, &cluster_.store_node()};
    }
}

void Nemesis::make(Trouble trouble) {
    if (trouble == Trouble::corrupt && !corrupts_) trouble = Trouble::reset;
    if (trouble == Trouble::misread && !corrupts_) trouble = Trouble::slow_disk;
    ++tally_[static_cast<size_t>(trouble)];
    switch (trouble) {
        case Trouble::store_kill:
        case Trouble::store_power_loss:
        case Trouble::store_pause:
        case Trouble::slow_disk:
            return store_trouble(trouble, draw_duration(1500 * runtime::milliseconds));
        case Trouble::misread:
            return misread();
        case Trouble::client_kill:
        case Trouble::client_pause:
            return client_trouble(trouble, draw_duration(runtime::seconds));
        case Trouble::conductor_kill: {
            cluster_.conductor_node().kill();
            const Nanos duration = draw_duration(3 * runtime::seconds);
            cluster_.sim().after(duration, [this] {
                if (!cluster_.conductor_node().running()) cluster_.conductor_node().restart();
            });
            return;
        }
        default:
            return network_trouble(trouble, draw_duration(2 * runtime::seconds));
    }
}

void Nemesis::kill_store(bool power_loss) {
    SimNode& node = cluster_.store_node();
    if (power_loss) {
        node.power_loss();
    } else {
        node.kill();
    }
    oracle_.store_died();
    // A mount that reads wrongly refuses the tray, and then nobody has the data.
    for (SimDisk* disk : cluster_.disks()) disk->clear_faults();
}

// The next reads of one disk return the bytes of another place.
void Nemesis::misread() {
    if (!cluster_.store_node().running() || !cluster_.ready()) return;
    SimDisk& disk = *cluster_.disks()[rng_.below(cluster_.disks().size())];
    DiskFault fault;
    fault.kind = FaultKind::misdirected_read;
    fault.operations = DiskFault::on_read;
    fault.count = rng_.between(1, 6);
    fault.other_offset = rng_.below(disk.contents().size_bytes() / block_bytes / 2) * block_bytes;
    disk.inject(fault);
}

void Nemesis::store_trouble(Trouble trouble, Nanos duration) {
    SimNode& node = cluster_.store_node();
    if (trouble == Trouble::slow_disk) {
        SimDisk& disk = *cluster_.disks()[rng_.below(cluster_.disks().size())];
        disk.model().faults.slow_ppm = 100'000;
        disk.model().faults.slow_extra = draw_duration(100 * runtime::milliseconds);
        cluster_.sim().after(duration, [&disk] { disk.model().faults = {}; });
        return;
    }
    if (trouble == Trouble::store_pause) {
        if (!node.running() || node.paused()) return;
        node.pause();
        cluster_.sim().after(duration, [&node] {
            if (node.running() && node.paused()) node.resume();
        });
        return;
    }
    kill_store(trouble == Trouble::store_power_loss);
    cluster_.sim().after(duration, [&node] {
        if (!node.running()) node.restart();
    });
}

void Nemesis::client_trouble(Trouble trouble, Nanos duration) {
    SimClient& client = *clients_[rng_.below(clients_.size())];
    SimNode& node = client.node();
    if (!node.running()) return;
    if (trouble == Trouble::client_pause) {
        if (node.paused()) return;
        node.pause();
        cluster_.sim().after(duration, [&node] {
            if (node.running() && node.paused()) node.resume();
        });
        return;
    }
    client.kill();
    if (!cluster_.store_node().running()) oracle_.store_died();
    cluster_.sim().after(duration, [&client] {
        if (!client.node().running()) client.start();
    });
}

void Nemesis::network_trouble(Trouble trouble, Nanos duration) {
    SimNetwork& network = cluster_.sim().network();
    const auto pair = draw_pair();
    SimNode* const a = pair.first;
    SimNode* const b = pair.second;
    switch (trouble) {
        case Trouble::reset:
            network.reset_connections(*a, *b);
            return;
        case Trouble::partition:
            network.partition(*a, *b);
            cluster_.sim().after(duration, [&network, a, b] { network.heal(*a, *b); });
            return;
        case Trouble::one_way: {
            SimNode* from = rng_.below(2) == 0 ? a : b;
            SimNode* to = from == a ? b : a;
            network.block(*from, *to);
            cluster_.sim().after(duration, [&network, from, to] { network.unblock(*from, *to); });
            return;
        }
        case Trouble::late:
            // What a client has given up may still be on its way.
            network.model().late_ppm = static_cast<uint32_t>(rng_.between(20'000, 300'000));
            network.model().late_extra = rng_.between(1, 300) * runtime::milliseconds;
            break;
        case Trouble::corrupt:
            network.corrupt_next(*a, *b, static_cast<uint32_t>(rng_.between(1, 6)));
            network.corrupt_next(*b, *a, static_cast<uint32_t>(rng_.between(1, 6)));
            return;
        case Trouble::random_resets:
            network.model().reset_ppm = 3'000;
            network.model().refuse_ppm = 200'000;
            network.model().fragment_ppm = 600'000;
            break;
        default:
            return;
    }
    cluster_.sim().after(duration, [this, &network] { network.model() = calm_; });
}

void Nemesis::heal() {
    end_ = 0;
    SimNetwork& network = cluster_.sim().network();
    network.heal_all();
    network.model() = calm_;
    for (SimDisk* disk : cluster_.disks()) disk->clear_faults();
    for (SimNode* node : {&cluster_.conductor_node(), &cluster_.store_node()}) {
        if (!node->running()) node->restart();
        if (node->paused()) node->resume();
    }
    for (const auto& client : clients_) {
        if (!client->node().running()) client->start();
        if (client->node().paused()) client->node().resume();
    }
}

}  // namespace pf::test
