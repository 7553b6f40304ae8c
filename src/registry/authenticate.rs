//! Who we are at a registry: Basic, or tokens from the server that the registry names.

use std::time::{Duration, Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;

use crate::{
    model::registry_auth::RegistryAuth,
    registry::{
        challenge::{Challenge, challenges},
        failure::{Failure, RequestLine},
        transport::HttpClient,
    },
};

/// Tokens without a stated life live this long (the token spec's default).
const DEFAULT_TOKEN_LIFE: Duration = Duration::from_secs(60);

/// A token is asked for anew this long before its end.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// Answers of token servers are small.
const TOKEN_ANSWER_LIMIT: usize = 1 << 20;

/// What a token may do.
#[derive(Clone, Debug)]
pub enum Scope {
    /// Read one repository.
    Pull(String),
    /// Write one repository, and take blobs from others.
    Push {
        /// Where to.
        to: String,
        /// Where from.
        from: Vec<String>,
    },
    /// Nothing yet, but asks for a refresh token (`docker login`).
    Login,
}

/// How requests of one session are signed.
pub struct Authenticator {
    client: HttpClient,
    auth: RegistryAuth,
    scope: Scope,
    challenges: Vec<Challenge>,
    token: Option<(String, Instant)>,
    /// A refresh token that the token server gave for our password.
    pub refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    #[serde(default)]
    expires_in: u64,
}

impl Authenticator {
    /// Nothing is known of the registry's wishes yet.
    pub fn new(client: HttpClient, auth: RegistryAuth, scope: Scope) -> Self {
        Self { client, auth, scope, challenges: Vec::new(), token: None, refresh_token: None }
    }

    /// Takes up what an answer demanded; a token that was refused is thrown away. Whether a second try may do better.
    pub fn learn(&mut self, found: Vec<Challenge>) -> bool {
        let refused_before = self.token.take().is_some();
        let expired = found.iter().any(|challenge| challenge.parameter("error") == "invalid_token");
        let first = self.challenges.is_empty();
        if !found.is_empty() {
            self.challenges = found;
        }
        !self.challenges.is_empty() && (first || (refused_before && expired))
    }

    /// Adds what the registry asked for.
    pub async fn sign(
        &mut self,
        request: RequestBuilder,
        method: &Method,
        url: &str,
    ) -> Result<RequestBuilder, Failure> {
        if !self.auth.registrytoken.is_empty() {
            return Ok(request.bearer_auth(&self.auth.registrytoken));
        }
        if let Some(bearer) = self.challenges.iter().find(|challenge| challenge.scheme == "bearer").cloned() {
            let token = self.token(&bearer).await?;
            return Ok(request.bearer_auth(token));
        }
        if self.challenges.iter().any(|challenge| challenge.scheme == "basic") {
            if self.auth.username.is_empty() {
                return Err(Failure::NoCredentials(RequestLine::new(method, url)));
            }
            return Ok(request.basic_auth(&self.auth.username, Some(&self.auth.password)));
        }
        Ok(request)
    }

    async fn token(&mut self, bearer: &Challenge) -> Result<String, Failure> {
        if let Some((token, until)) = &self.token
            && Instant::now() + TOKEN_MARGIN < *until
        {
            return Ok(token.clone());
        }
        let asked = Instant::now();
        let answer = self.ask_for_token(bearer).await?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() {
            return Err(Failure::Other("authorization server did not include a token in the response".to_owned()));
        }
        if !answer.refresh_token.is_empty() {
            self.refresh_token = Some(answer.refresh_token);
        }
        // The spec promises a minute at least; some servers say less and mean it not.
        let life = DEFAULT_TOKEN_LIFE.max(Duration::from_secs(answer.expires_in.min(86_400)));
        self.token = Some((token.clone(), asked + life));
        Ok(token)
    }

    async fn ask_for_token(&self, bearer: &Challenge) -> Result<TokenAnswer, Failure> {
        let realm = bearer.parameter("realm");
        let url =
            Url::parse(realm).map_err(|_| Failure::Other(format!("invalid token auth challenge realm: {realm:?}")))?;
        let service = bearer.parameter("service");
        let scopes = self.scopes();
        if self.auth.identitytoken.is_empty() {
            self.token_by_password(url, service, &scopes).await
        } else {
            self.token_by_refresh(url, service, &scopes.join(" ")).await
        }
    }

    fn scopes(&self) -> Vec<String> {
        match &self.scope {
            Scope::Pull(repository) => vec![format!("repository:{repository}:pull")],
            Scope::Push { to, from } => {
                let from = from.iter().map(|repository| format!("repository:{repository}:pull"));
                std::iter::once(format!("repository:{to}:pull,push")).chain(from).collect()
            }
            Scope::Login => Vec::new(),
        }
    }

    async fn token_by_password(&self, mut url: Url, service: &str, scopes: &[String]) -> Result<TokenAnswer, Failure> {
        {
            let mut query = url.query_pairs_mut();
            if !self.auth.username.is_empty() {
                query.append_pair("account", &self.auth.username);
            }
            if matches!(self.scope, Scope::Login) {
                query.append_pair("client_id", "docker").append_pair("offline_token", "true");
            }
            for scope in scopes {
                query.append_pair("scope", scope);
            }
            query.append_pair("service", service);
        }
        let mut request = self.client.request(Method::GET, url.clone());
        if !self.auth.username.is_empty() {
            let pair = STANDARD.encode(format!("{}:{}", self.auth.username, self.auth.password));
            request = request.header("authorization", format!("Basic {pair}"));
        }
        self.fetch_token(&Method::GET, url, request).await
    }

    async fn token_by_refresh(&self, url: Url, service: &str, scope: &str) -> Result<TokenAnswer, Failure> {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &self.auth.identitytoken),
            ("service", service),
            ("client_id", "docker"),
            ("scope", scope),
        ];
        let body = serde_urlencoded::to_string(form).expect("pairs of strings can always be encoded");
        let request = self.client.request(Method::POST, url.clone());
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        self.fetch_token(&Method::POST, url, request).await
    }

    async fn fetch_token(&self, method: &Method, url: Url, request: RequestBuilder) -> Result<TokenAnswer, Failure> {
        read_token(method, &url, self.client.send(request, method, &url).await?).await
    }
}

async fn read_token(method: &Method, url: &Url, answer: Response) -> Result<TokenAnswer, Failure> {
    let (status, found) = (answer.status(), challenges(answer.headers()));
    let body = super::session::read_limited(answer, method, url, TOKEN_ANSWER_LIMIT).await?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|error| Failure::Other(format!("unable to decode token response: {error}")));
    }
    match Failure::from_answer(status, &found, &body) {
        // Docker Hub's token server says `{"details":"incorrect username or password"}`.
        Failure::Refused(StatusCode::UNAUTHORIZED, errors) => Err(Failure::Refused(StatusCode::UNAUTHORIZED, errors)),
        other => Err(other),
    }
}
