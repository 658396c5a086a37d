//! Redis Cluster of three masters: real processes that share the slots.

use promptkeep::config::StoreConfig;
use tokio::net::TcpListener;

use super::{redis_server::RedisServer, test_server::until};

/// Number of slots in a cluster.
const SLOTS: u16 = 16384;
const MASTERS: u16 = 3;

pub struct RedisCluster {
    pub masters: Vec<RedisServer>,
}

impl RedisCluster {
    pub async fn start() -> Self {
        let (mut masters, mut buses) = (Vec::new(), Vec::new());
        for n in 0..MASTERS {
            let bus = free_port().await.to_string();
            // A dead master is detected soon, and the others continue without its slots.
            let options = [
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "1000",
                "--cluster-require-full-coverage",
                "no",
                "--save",
                "",
                "--appendonly",
                "no",
            ];
            let master = RedisServer::with(&options).await;
            let share = SLOTS / MASTERS;
            let last = if n + 1 == MASTERS { SLOTS } else { share * (n + 1) } - 1;
            master.command::<()>(&format!("CLUSTER ADDSLOTSRANGE {} {last}", share * n)).await;
            masters.push(master);
            buses.push(bus);
        }
        for master in &masters[1..] {
            let meet = format!("CLUSTER MEET 127.0.0.1 {} {}", masters[0].port, buses[0]);
            master.command::<()>(&meet).await;
        }
        let cluster = Self { masters };
        cluster.wait_until_complete().await;
        cluster
    }

    /// Waits until every master reports that all slots are served.
    pub async fn wait_until_complete(&self) {
        for master in &self.masters {
            until(async || {
                let info = master.command::<String>("CLUSTER INFO").await;
                let nodes = master.command::<String>("CLUSTER NODES").await;
                let connected = nodes.lines().filter(|node| node.contains(" connected ")).count();
                info.contains("cluster_state:ok")
                    && info.contains("cluster_slots_ok:16384")
                    && connected == usize::from(MASTERS)
            })
            .await;
        }
    }

    /// Store configuration for replicas that share this cluster.
    pub fn store(&self) -> StoreConfig {
        let url = self.masters.iter().map(RedisServer::url).collect();
        StoreConfig { url, ..self.masters[0].store() }
    }

    /// Returns the names of matching keys on all masters.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let mut keys = Vec::new();
        for master in &self.masters {
            keys.extend(master.keys(pattern).await);
        }
        keys
    }

    /// Moves all slots that hold keys from one master to another, key by key, as resharding does.
    pub async fn move_slots(&self, from: usize, to: usize) {
        let (from, to) = (&self.masters[from], &self.masters[to]);
        let (from_id, to_id) = (id(from).await, id(to).await);
        let mut slots = Vec::new();
        for key in from.keys("*").await {
            slots.push(from.command::<u16>(&format!("CLUSTER KEYSLOT {key}")).await);
        }
        slots.sort_unstable();
        slots.dedup();
        for slot in slots {
            to.command::<()>(&format!("CLUSTER SETSLOT {slot} IMPORTING {from_id}")).await;
            from.command::<()>(&format!("CLUSTER SETSLOT {slot} MIGRATING {to_id}")).await;
            loop {
                let keys: Vec<String> = from.command(&format!("CLUSTER GETKEYSINSLOT {slot} 100")).await;
                if keys.is_empty() {
                    break;
                }
                let keys = keys.join(" ");
                let migrate = format!("MIGRATE 127.0.0.1 {} | 0 5000 REPLACE KEYS {keys}", to.port);
                from.command::<String>(&migrate).await;
            }
            for master in [to, from] {
                master.command::<()>(&format!("CLUSTER SETSLOT {slot} NODE {to_id}")).await;
            }
        }
    }
}

async fn id(master: &RedisServer) -> String {
    master.command("CLUSTER MYID").await
}

async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    listener.local_addr().expect("bound").port()
}
