//! Which node a command speaks of: its data folder, by flag or by configuration.

use std::path::{Path, PathBuf};

use clap::Args;
use config::file::File;
use config::resolve::{Config, resolve};
use config::value::{Address, Name};
use journal::Class;
use node::control::Client;

use crate::exit::Failure;

/// Where the configuration lies when nobody says otherwise.
const CONFIG: &str = "/etc/towline/towline.ron";

/// How to find a node.
#[derive(Args, Clone, Debug)]
pub(crate) struct Whereabouts {
    /// Configuration of all nodes [default: /etc/towline/towline.ron]
    #[arg(short, long, global = true, value_name = "FILE", env = "TOWLINE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// The node's data folder; without it the configuration says where it is
    #[arg(long, global = true, value_name = "DIR", env = "TOWLINE_DATA")]
    pub(crate) data: Option<PathBuf>,
    /// Which node of the configuration this is [default: the host's name]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) node: Option<Name>,
}

impl Whereabouts {
    /// The configuration file that counts.
    pub(crate) fn config_path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(CONFIG))
    }

    /// What the configuration says about this node.
    pub(crate) fn resolve(&self) -> Result<Config, Failure> {
        let path = self.config_path();
        let file = File::load(path)?;
        let name = self.name_in(&file)?;
        let mut config = resolve(path, &file, &name)?;
        if let Some(data) = &self.data {
            config.data = data.clone();
        }
        Ok(config)
    }

    /// The configuration, if there is one: it was named, or it lies where one is looked for.
    pub(crate) fn file(&self) -> Result<Option<File>, Failure> {
        let there = self.config.is_some() || Path::new(CONFIG).exists();
        Ok(there.then(|| File::load(self.config_path())).transpose()?)
    }

    /// Where the configuration says that node `name` is.
    pub(crate) fn address_in<'a>(&self, file: &'a File, name: &Name) -> Result<&'a Address, Failure> {
        file.nodes.get(name).ok_or_else(|| {
            let known = file.nodes.keys().map(Name::as_str).collect::<Vec<_>>().join(", ");
            let path = self.config_path().display();
            Failure::new(Class::Config, format_args!("{path}: nodes: there is no node {name} here, only {known}"))
        })
    }

    /// The data folder, as a full path.
    pub(crate) fn data(&self) -> Result<PathBuf, Failure> {
        let data = match &self.data {
            Some(data) => data.clone(),
            None => match self.file()? {
                Some(file) => file.data,
                None => {
                    return Err(Failure::usage("which node? Say --data DIR, or -c FILE with its configuration")
                        .hint("the environment may say it too: TOWLINE_DATA or TOWLINE_CONFIG"));
                }
            },
        };
        std::path::absolute(&data).map_err(|cause| Failure::io(data.display(), cause))
    }

    /// A connection to the running node.
    pub(crate) fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(&self.data()?)?)
    }

    /// `--node`, or the host's name as the file has it: whole, or up to its first dot.
    fn name_in(&self, file: &File) -> Result<Name, Failure> {
        if let Some(name) = &self.node {
            return Ok(name.clone());
        }
        let host = host_name();
        let short = host.split('.').next().unwrap_or_default();
        let found =
            [host.as_str(), short].iter().find_map(|host| file.nodes.keys().find(|name| name.as_str() == *host));
        found.cloned().ok_or_else(|| {
            let known = file.nodes.keys().map(Name::as_str).collect::<Vec<_>>().join(", ");
            let path = self.config_path().display();
            Failure::new(Class::Config, format_args!("{path}: nodes: this host is \"{host}\", the nodes are {known}"))
                .hint("say which one this is: --node NAME")
        })
    }
}

/// The host's name, as the kernel knows it.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
