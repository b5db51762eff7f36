//! The configuration as text: a whole one, or a connector and its route for one that is there. It writes nothing.

use toml::Value;

use super::flags::SiteAnswers;

/// Where a file of that name is while the text is looked at.
pub(super) type Finder<'a> = &'a dyn Fn(&str) -> String;

/// A key of the connector.
#[derive(Debug, Clone)]
pub(super) enum ConnectorKey {
    Text(&'static str, String),
    Number(&'static str, i64),
    /// A file beside the configuration.
    File(&'static str, String),
    /// A secret in such a file.
    SecretIn(&'static str, String),
    /// `true`.
    On(&'static str),
    /// The keys behind it stand in this table.
    Table(&'static str),
}

/// What is to be written.
#[derive(Debug, Clone)]
pub(super) struct ConfigDraft {
    pub(super) kind: &'static str,
    pub(super) site: SiteAnswers,
    pub(super) connector: Vec<ConnectorKey>,
    /// Every sender becomes this one.
    pub(super) collapse: Option<String>,
    /// The sender of bounces, where it is not the mailbox of the connector.
    pub(super) bounce_from: Option<String>,
}

fn text(text: &str) -> Value {
    Value::from(text)
}

fn list(all: &[String]) -> String {
    Value::from(all.to_vec()).to_string()
}

impl ConfigDraft {
    /// A whole configuration.
    pub(super) fn whole(&self, files: Finder<'_>) -> String {
        let site = &self.site;
        let mut parts = vec![format!(
            "# Made by `postern setup {}`. config.example.toml explains every key.\n",
            self.kind
        )];
        if let Some(hostname) = &site.hostname {
            parts.push(format!("hostname = {}\n", text(hostname)));
        }
        parts.push(format!(
            "\n[[listener]]\nname = \"local\"\naddress = {}\n",
            text(&site.listen)
        ));
        if !site.networks.is_empty() {
            parts.push(format!(
                "\n[[client]]\nname = \"devices\"\nnetworks = {}\ntolerance = \"device\"\n",
                list(&self.networks())
            ));
        }
        parts.push(format!(
            "\n[allowlist]\nsenders = {}\nrecipients = {}\n",
            list(&site.senders),
            list(&site.recipients)
        ));
        if let Some(to) = &self.collapse {
            parts.push(format!(
                "\n[[rewrite]]\nsenders = [\"*\"]\nto = {}\n",
                text(to)
            ));
        }
        parts.push(format!(
            "\n[[route]]\nname = \"all\"\nconnectors = [{}]\n",
            text(&site.name)
        ));
        parts.push(self.section(files));
        if let Some(from) = &self.bounce_from {
            parts.push(format!("\n[bounce]\nfrom = {}\n", text(from)));
        }
        parts.concat()
    }

    /// The connector, and the route that leads to it.
    pub(super) fn beside(&self, files: Finder<'_>) -> String {
        let site = &self.site;
        let mut parts = vec![format!(
            "# Made by `postern setup {}`, for the configuration beside it: the first route that matches wins.\n",
            self.kind
        )];
        if let Some(to) = &self.collapse {
            parts.push(format!(
                "[[rewrite]]\nsenders = {}\nto = {}\n\n",
                list(&site.senders),
                text(to)
            ));
        }
        parts.push(format!(
            "[[route]]\nname = {0}\nsenders = {1}\nrecipients = {2}\nconnectors = [{0}]\n",
            text(&site.name),
            list(&site.senders),
            list(&site.recipients),
        ));
        parts.push(self.section(files));
        parts.concat()
    }

    /// This machine, and the networks that were named.
    fn networks(&self) -> Vec<String> {
        let mut all = self.site.networks.clone();
        for own in ["127.0.0.0/8", "::1/128"] {
            if let Ok(own) = own.parse()
                && !all.iter().any(|network| network.contains(&own))
            {
                all.push(own);
            }
        }
        all.iter().map(ToString::to_string).collect()
    }

    fn section(&self, files: Finder<'_>) -> String {
        let at = |name: &String| text(&files(name));
        let mut parts = vec![format!(
            "\n[[connector]]\nname = {}\n",
            text(&self.site.name)
        )];
        let proxy = self.site.proxy.as_deref();
        let mut proxy = proxy.map(|proxy| format!("proxy = {}\n", text(proxy)));
        for key in &self.connector {
            parts.push(match key {
                ConnectorKey::Text(key, value) => format!("{key} = {}\n", text(value)),
                ConnectorKey::Number(key, value) => format!("{key} = {value}\n"),
                ConnectorKey::File(key, name) => format!("{key} = {}\n", at(name)),
                ConnectorKey::SecretIn(key, name) => {
                    format!("{key} = {{ file = {} }}\n", at(name))
                }
                ConnectorKey::On(key) => format!("{key} = true\n"),
                // Behind the head of a table a key would be the table's.
                ConnectorKey::Table(name) => {
                    format!("{}\n[{name}]\n", proxy.take().unwrap_or_default())
                }
            });
        }
        parts.extend(proxy);
        parts.concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(networks: &[&str]) -> ConfigDraft {
        ConfigDraft {
            kind: "gmail",
            site: SiteAnswers {
                name: "gmail".to_owned(),
                networks: networks.iter().map(|one| one.parse().unwrap()).collect(),
                listen: "127.0.0.1:25".to_owned(),
                senders: vec!["corp.example".to_owned()],
                recipients: vec!["*".to_owned()],
                hostname: None,
                proxy: Some("http://proxy:3128".to_owned()),
            },
            connector: vec![
                ConnectorKey::Text("type", "smtp".to_owned()),
                ConnectorKey::Table("connector.oauth"),
                ConnectorKey::File("service_account_file", "gmail.json".to_owned()),
            ],
            collapse: Some("o'brien@corp.example".to_owned()),
            bounce_from: None,
        }
    }

    #[test]
    fn the_proxy_is_the_connectors_and_not_the_tables() {
        let text = draft(&[]).whole(&|name| format!("/etc/postern/{name}"));
        let read: toml::Table = text.parse().unwrap();
        let connector = &read["connector"][0];
        assert_eq!(connector["proxy"].as_str(), Some("http://proxy:3128"));
        assert_eq!(
            connector["oauth"]["service_account_file"].as_str(),
            Some("/etc/postern/gmail.json")
        );
        assert_eq!(
            read["rewrite"][0]["to"].as_str(),
            Some("o'brien@corp.example")
        );
        assert!(!read.contains_key("client"), "this machine needs none");
        let beside: toml::Table = draft(&[]).beside(&str::to_owned).parse().unwrap();
        assert_eq!(
            beside["rewrite"][0]["senders"][0].as_str(),
            Some("corp.example"),
            "nobody else's sender is changed"
        );
    }

    #[test]
    fn this_machine_may_always_send() {
        let networks = |given: &[&str]| draft(given).networks().join(" ");
        assert_eq!(networks(&["10.0.0.0/8"]), "10.0.0.0/8 127.0.0.0/8 ::1/128");
        assert_eq!(networks(&["127.0.0.0/8", "::1/128"]), "127.0.0.0/8 ::1/128");
        assert_eq!(networks(&["0.0.0.0/0"]), "0.0.0.0/0 ::1/128");
    }
}
