//! `docker login`: whether a registry takes these credentials.

use reqwest::{Method, StatusCode};

use crate::{
    model::{Error, ErrorKind, Result, reference::DEFAULT_REGISTRY, registry_auth::RegistryAuth},
    registry::{
        Registry,
        authenticate::{Authenticator, Scope},
        challenge::challenges,
        endpoint::{Endpoint, login_endpoints},
        failure::Failure,
    },
};

/// Yes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// A refresh token to keep in place of the password, if the registry gave one.
    pub identity_token: String,
}

impl Registry {
    /// Checks credentials at the registry they name.
    pub async fn login(&self, auth: &RegistryAuth) -> Result<Login> {
        let host = registry_of(&auth.serveraddress);
        let mut last = Error::system(format!("no endpoint for {host}"));
        for endpoint in login_endpoints(&host, &self.config).await {
            let plain = !endpoint.is_tls();
            match self.login_at(endpoint, auth).await {
                Ok(login) => return Ok(login),
                Err(LoginFailure::Unreachable(failure)) => last = Error::system(failure.text()).as_news(),
                Err(LoginFailure::Refused(error)) if plain => return Err(error),
                // A registry that answered over TLS is not asked again in plain text with the same password.
                Err(LoginFailure::Refused(error)) => return Err(error),
            }
        }
        Err(last)
    }

    async fn login_at(&self, endpoint: Endpoint, auth: &RegistryAuth) -> Result<Login, LoginFailure> {
        let client = self.client(&endpoint).map_err(LoginFailure::Refused)?;
        let text = format!("{}/v2/", endpoint.base);
        let url = reqwest::Url::parse(&text).map_err(|error| {
            LoginFailure::Refused(Error::invalid(format!("invalid registry URL {text:?}: {error}")))
        })?;
        let answer = client
            .send(client.request(Method::GET, url.clone()), &Method::GET, &url)
            .await
            .map_err(LoginFailure::Unreachable)?;
        if answer.status().is_success() {
            return Ok(Login::default());
        }
        let mut authenticator = Authenticator::new(client.clone(), auth.clone(), Scope::Login);
        authenticator.learn(challenges(answer.headers()));
        let signed = authenticator.sign(client.request(Method::GET, url.clone()), &Method::GET, url.as_str()).await;
        let signed = signed.map_err(|failure| refused(&url, &failure))?;
        let answer = client.send(signed, &Method::GET, &url).await.map_err(LoginFailure::Unreachable)?;
        match answer.status() {
            status if status.is_success() => {
                Ok(Login { identity_token: authenticator.refresh_token.unwrap_or_default() })
            }
            status => {
                let text = format!("login attempt to {url} failed with status: {status}");
                Err(LoginFailure::Refused(Error::system(text).as_news()))
            }
        }
    }
}

enum LoginFailure {
    Unreachable(Failure),
    Refused(Error),
}

/// A token server that does not know the password makes it 401, as dockerd has it.
fn refused(url: &reqwest::Url, failure: &Failure) -> LoginFailure {
    let kind = match failure {
        Failure::Refused(StatusCode::UNAUTHORIZED, _) => ErrorKind::Unauthorized,
        _ => ErrorKind::System,
    };
    let text = match failure {
        Failure::Refused(..) => format!("Get \"{url}\": {}", failure.text()),
        _ => failure.text(),
    };
    LoginFailure::Refused(Error::new(kind, text))
}

/// Clients write `https://index.docker.io/v1/`, `https://host:5000/v2/` or `host:5000`.
pub fn registry_of(server: &str) -> String {
    let bare = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = bare.split('/').next().unwrap_or_default();
    match host {
        "" | "index.docker.io" | "docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
        host => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_addresses_of_all_clients_are_read() {
        for hub in ["", "https://index.docker.io/v1/", "docker.io"] {
            assert_eq!(registry_of(hub), "docker.io");
        }
        assert_eq!(registry_of("http://reg.test:5000/v2/"), "reg.test:5000");
    }
}
