//! A Kubernetes cluster of real processes: etcd, kube-apiserver and kube-controller-manager, with its own CAs.

mod service_account;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use rcgen::KeyPair;
use testkit::api_client::{ApiClient, Credentials};
use testkit::pki::{Authority, Identity};
use testkit::{hold_port, kubeconfig, kubectls};
use tokio::net::TcpSocket;
use tokio::time::sleep;

use crate::api::{Api, until};
use crate::process::Process;
use crate::tools::Tools;

/// Time limit for an API server to become ready on a busy machine.
const READY: Duration = Duration::from_secs(180);
/// Interval of checks for readiness.
const LOOK: Duration = Duration::from_millis(200);
/// Time limit for an API server to load a changed file. Without a notification it reads the file once per minute.
const RELOADED: Duration = Duration::from_secs(120);
/// The only allowed common name in a front proxy's certificate.
pub const FRONT_PROXY: &str = "front-proxy-client";
/// The issuer of service account tokens.
const ISSUER: &str = "https://kubernetes.default.svc";

/// A running cluster.
pub struct Cluster {
    /// Its name. Its programs are called `<name>-etcd` and so on.
    pub name: String,
    /// A client with administrator permissions.
    pub api: Api,
    /// Its storage.
    pub etcd: Process,
    /// Its API server.
    pub api_server: Process,
    /// Its controllers.
    pub controllers: Process,
    url: String,
    directory: PathBuf,
    kubeconfig: PathBuf,
    authority: Authority,
    admin: Identity,
    service_accounts: KeyPair,
    _ports: Vec<TcpSocket>,
}

impl Cluster {
    /// Starts a cluster with these `controllers` in its kube-controller-manager, and waits until its API server is ready.
    /// Its files are in a directory below `directory`.
    ///
    /// # Errors
    /// If a program cannot be run or exits, or the API server is not ready within three minutes.
    pub async fn start(
        name: &str,
        controllers: &[&str],
        api_server: &[&str],
        tools: &Tools,
        directory: &Path,
        logs: &Path,
    ) -> anyhow::Result<Self> {
        let directory = directory.join(name);
        fs::create_dir_all(&directory)?;
        let mut ports = Vec::new();
        let mut port = || -> anyhow::Result<u16> {
            ports.push(free_port()?);
            Ok(ports[ports.len() - 1].local_addr()?.port())
        };
        let (clients, peers, secure) = (port()?, port()?, port()?);
        let url = format!("https://127.0.0.1:{secure}");
        let authority = Authority::new(&format!("{name}-ca"));
        let service_accounts = KeyPair::generate()?;
        let file = |name: &str| directory.join(name);
        fs::write(file("ca.crt"), authority.pem())?;
        fs::write(file("service-accounts.key"), service_accounts.serialize_pem())?;
        fs::write(file("service-accounts.pub"), service_accounts.public_key_pem())?;
        let serving = authority.server(&["127.0.0.1", "localhost", "kubernetes.default.svc"]);
        write_identity(&directory, "serving", &serving)?;
        write_front_proxy(&directory, &Authority::new(&format!("{name}-front-proxy-ca")))?;
        let admin = authority.client("admin", &["system:masters"]);
        let kubeconfig = file("admin.kubeconfig");
        kubeconfig::write(&kubeconfig, &url, &authority.pem(), "admin", &admin)?;

        let program = |part: &str| format!("{name}-{part}");
        let etcd =
            Process::start(program("etcd"), &tools.etcd, etcd_flags(&directory, clients, peers), logs)?;
        let mut flags = api_server_flags(&directory, clients, secure);
        flags.extend(api_server.iter().map(ToString::to_string));
        let mut api_server = Process::start(program("kube-apiserver"), &tools.kube_apiserver, flags, logs)?;
        let credentials = Credentials::Certificate(&admin);
        let client = ApiClient::new(&url, &authority.pem(), credentials)?;
        let api = Api::new(client, kubectls(&kubeconfig), &directory);
        ready(&api, &mut api_server).await?;
        let flags = controller_flags(&directory, &kubeconfig, controllers);
        let program = program("kube-controller-manager");
        let controllers = Process::start(program, &tools.kube_controller_manager, flags, logs)?;
        Ok(Self {
            name: name.to_owned(),
            api,
            etcd,
            api_server,
            controllers,
            url,
            directory,
            kubeconfig,
            authority,
            admin,
            service_accounts,
            _ports: ports,
        })
    }

    /// Waits until the API server is ready, for example after a restart.
    ///
    /// # Errors
    /// If the API server exits, or is not ready within three minutes.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        ready(&self.api, &mut self.api_server).await
    }

    /// Checks that all programs still run.
    ///
    /// # Errors
    /// If a program has exited.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.etcd.check()?;
        self.api_server.check()?;
        self.controllers.check()
    }

    /// Makes all programs run again after any fault.
    ///
    /// # Errors
    /// If a program does not start.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        self.etcd.ensure_running()?;
        self.api_server.ensure_running()?;
        self.controllers.ensure_running()
    }

    /// The URL of its API server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The CA of its certificates.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// A serving certificate of this cluster's CA.
    pub fn serving_identity(&self, names: &[&str]) -> Identity {
        self.authority.server(names)
    }

    /// A kubeconfig with all permissions.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The administrator's certificate.
    pub fn admin(&self) -> &Identity {
        &self.admin
    }

    /// The front proxy certificate of its API server.
    ///
    /// # Errors
    /// If its files cannot be read.
    pub fn front_proxy(&self) -> anyhow::Result<Identity> {
        let read = |name: &str| fs::read_to_string(self.directory.join(name));
        Ok(Identity { certificate: read("front-proxy.crt")?, key: read("front-proxy.key")? })
    }

    /// The directory with the cluster's files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Adds the CA of another front proxy to the CAs that the API server trusts, without a restart. This is the first step of a
    /// rotation, before the proxy's certificate changes.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn announce_front_proxy(&self, next: &Authority) -> anyhow::Result<()> {
        let file = self.directory.join("front-proxy-ca.crt");
        let both = fs::read_to_string(&file)? + &next.pem();
        Ok(fs::write(file, both)?)
    }

    /// Gives the API server another front proxy certificate, trusts only its CA, and waits until both are loaded.
    ///
    /// # Errors
    /// If the files cannot be written, or loading takes longer than two minutes.
    pub async fn change_front_proxy(&self, next: &Authority) -> anyhow::Result<()> {
        let loaded =
            || self.api_server.count_log_lines(&["Loaded a new cert/key pair", "aggregator-proxy-cert"]);
        let before = loaded();
        write_front_proxy(&self.directory, next)?;
        until("kube-apiserver loads its certificate as front proxy", RELOADED, async || {
            ensure!(loaded() > before, "kube-apiserver has not loaded the certificate");
            Ok(())
        })
        .await
    }
}

/// Binds a free port of 127.0.0.1. No other process gets the port while the result exists.
///
/// # Errors
/// If there is no free port.
pub fn free_port() -> anyhow::Result<TcpSocket> {
    Ok(hold_port(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?)
}

async fn ready(api: &Api, api_server: &mut Process) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        api_server.check()?;
        match api.answer("/readyz").await {
            Ok(answer) if answer.status.is_success() => return Ok(()),
            _ if began.elapsed() > READY => {
                bail!("{} is not ready after {READY:?}\n{}", api_server.name(), api_server.tail());
            }
            _ => sleep(LOOK).await,
        }
    }
}

fn etcd_flags(directory: &Path, clients: u16, peers: u16) -> Vec<String> {
    let data = directory.join("etcd");
    let (clients, peers) = (format!("http://127.0.0.1:{clients}"), format!("http://127.0.0.1:{peers}"));
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={clients}"),
        format!("--advertise-client-urls={clients}"),
        format!("--listen-peer-urls={peers}"),
        format!("--initial-advertise-peer-urls={peers}"),
        format!("--initial-cluster=default={peers}"),
    ]
}

fn api_server_flags(directory: &Path, etcd: u16, port: u16) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", directory.join(name).display());
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--advertise-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={port}"),
        file("tls-cert-file", "serving.crt"),
        file("tls-private-key-file", "serving.key"),
        file("client-ca-file", "ca.crt"),
        file("requestheader-client-ca-file", "front-proxy-ca.crt"),
        file("proxy-client-cert-file", "front-proxy.crt"),
        file("proxy-client-key-file", "front-proxy.key"),
        format!("--requestheader-allowed-names={FRONT_PROXY}"),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        format!("--service-account-issuer={ISSUER}"),
        file("service-account-key-file", "service-accounts.pub"),
        file("service-account-signing-key-file", "service-accounts.key"),
        "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--v=2".to_owned(),
        // The pods do not need the tokens that this plugin would mount.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]
}

fn controller_flags(directory: &Path, kubeconfig: &Path, controllers: &[&str]) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", directory.join(name).display());
    vec![
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--controllers={}", controllers.join(",")),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        file("service-account-private-key-file", "service-accounts.key"),
        file("root-ca-file", "ca.crt"),
        "--horizontal-pod-autoscaler-sync-period=2s".to_owned(),
    ]
}

/// Writes `<name>.crt` and `<name>.key`.
///
/// # Errors
/// If one cannot be written.
pub fn write_identity(directory: &Path, name: &str, identity: &Identity) -> anyhow::Result<()> {
    fs::write(directory.join(format!("{name}.crt")), &identity.certificate)?;
    fs::write(directory.join(format!("{name}.key")), &identity.key)?;
    Ok(())
}

/// Writes the CA of the front proxy and a new certificate of it.
fn write_front_proxy(directory: &Path, authority: &Authority) -> anyhow::Result<()> {
    fs::write(directory.join("front-proxy-ca.crt"), authority.pem())?;
    write_identity(directory, "front-proxy", &authority.client(FRONT_PROXY, &[]))
}
