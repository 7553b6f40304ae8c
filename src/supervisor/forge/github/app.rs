//! The access tokens of a GitHub App's installation: made with a JWT that the App's key signs, good for an hour, and renewed before
//! that is over.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use http::Method;
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rustls::pki_types::{PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

use super::{
    super::http::Api,
    answers::{Installation, InstallationToken},
    hub::{VERSION, headers_of},
};
use crate::{
    model::{Error, Result, time::Timestamp},
    supervisor::{secret::Secret, settings::App},
};

/// GitHub takes no JWT that is good for longer than 10 minutes; its clock and ours differ.
const JWT_BEGAN: i64 = 60;
const JWT_LASTS: i64 = 9 * 60;

/// A token is renewed so long before its end: what was begun with it has to come to its end.
const EARLY: i64 = 15 * 60;

/// The tokens of one installation.
pub struct AppTokens {
    app: App,
    key: RsaKeyPair,
    /// Where it is installed, as a part of a path: `orgs/NAME` or `repos/OWNER/NAME`.
    place: String,
    installation: OnceCell<u64>,
    /// The lock is held while a new one is made, so that it is made once.
    held: Mutex<Option<Held>>,
}

#[derive(Clone)]
struct Held {
    token: Secret,
    ends: i64,
}

impl AppTokens {
    /// Those of an App where it is installed.
    pub fn new(app: &App, place: String) -> Result<Self> {
        let installation = app.installation.map_or_else(OnceCell::new, OnceCell::from);
        Ok(Self { key: key_of(app.key.reveal())?, app: app.clone(), place, installation, held: Mutex::default() })
    }

    /// One that is good for a while.
    pub async fn token(&self, api: &Api) -> Result<Secret> {
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.ends - EARLY > Timestamp::now().unix()) {
            return Ok(held.token.clone());
        }
        let made = self.make(api).await?;
        *held = Some(made.clone());
        Ok(made.token)
    }

    /// The server does not take it any more.
    pub async fn forget(&self, token: &Secret) {
        self.held.lock().await.take_if(|held| held.token == *token);
    }

    async fn make(&self, api: &Api) -> Result<Held> {
        let installation = self.installation.get_or_try_init(|| self.find_installation(api)).await?;
        let path = format!("app/installations/{installation}/access_tokens");
        let made: InstallationToken = self.call(api, Method::POST, &path).await?;
        Ok(Held { token: Secret::new(made.token), ends: made.expires_at.unix() })
    }

    async fn find_installation(&self, api: &Api) -> Result<u64> {
        let path = format!("{}/installation", self.place);
        Ok(self.call::<Installation>(api, Method::GET, &path).await?.id)
    }

    async fn call<T: serde::de::DeserializeOwned>(&self, api: &Api, method: Method, path: &str) -> Result<T> {
        let jwt = self.jwt(Timestamp::now().unix())?;
        let authorization = format!("Bearer {}", jwt.reveal());
        let answer = api.exchange(&method, path, None::<&Value>, &headers_of(&authorization, VERSION)).await?;
        if answer.status.is_success() {
            return Ok(api.read(&method, path, &answer.body)?);
        }
        let refusal = api.refusal(&method, path, &answer);
        let id = &self.app.id;
        Err(match answer.status.as_u16() {
            401 => Error::forbidden(format!(
                "GitHub does not take app_id {id} with its private_key: the key is another App's, or the clock is wrong"
            )),
            404 => Error::forbidden(format!("the App {id} is not installed at {}", self.place)),
            _ => return Err(refusal.into()),
        }
        .with_source(Error::from(refusal)))
    }

    fn jwt(&self, now: i64) -> Result<Secret> {
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let claims = json!({"iat": now - JWT_BEGAN, "exp": now - JWT_BEGAN + JWT_LASTS, "iss": self.app.id});
        let message = format!("{}.{}", encode(&json!({"alg": "RS256", "typ": "JWT"})), encode(&claims));
        let mut signature = vec![0; self.key.public().modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature)
            .map_err(|_| Error::system("signing a JWT with the App's key"))?;
        Ok(Secret::new(format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))))
    }
}

/// GitHub gives keys out as PKCS#1; openssl rewrites them as PKCS#8.
fn key_of(pem: &str) -> Result<RsaKeyPair> {
    let wrong = |why: String| Error::invalid(format!("private_key is no RSA key in PEM: {why}"));
    let der = PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(error.to_string()))?;
    let pair = match &der {
        PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
        PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
        _ => return Err(wrong("it is of another kind".to_owned())),
    };
    pair.map_err(|error| wrong(error.to_string()))
}
