//! `GET /distribution/{name}/json` and `GET /images/search`: what registries say, nothing is kept.

use crate::{
    engine::{Engine, tenants::Scope},
    model::{Error, Result, filters::Filters, reference::Reference, registry_auth::RegistryAuth},
    policy::Asked,
    registry::{self, Inspected, SearchResult},
};

/// What is asked for where the client says nothing.
const LIMIT: u32 = 25;

impl Engine {
    /// What a reference points at in its registry.
    pub async fn distribution_inspect(&self, scope: &Scope, name: &str, auth: &RegistryAuth) -> Result<Inspected> {
        let reference = Reference::parse(name)?.or_latest();
        scope.permit(Asked::Registry(reference.registry()))?;
        self.registry_for(scope).await?.inspect(&reference, &scope.login(&reference, auth)).await
    }

    /// Asks an index. `limit` 0 means the usual number.
    pub async fn image_search(
        &self,
        scope: &Scope,
        term: &str,
        limit: i64,
        filters: &Filters,
        auth: &RegistryAuth,
    ) -> Result<Vec<SearchResult>> {
        scope.permit(Asked::Registry(registry::registry_and_term(term).0))?;
        let wanted = Wanted::parse(filters)?;
        let limit = match u32::try_from(limit) {
            Ok(0) => LIMIT,
            Ok(limit) if limit <= 100 => limit,
            _ => return Err(Error::invalid(format!("limit {limit} is outside the range of [1, 100]"))),
        };
        let results = self.registry_for(scope).await?.search(term, limit, auth).await?;
        Ok(results.into_iter().filter(|result| wanted.contains(result)).collect())
    }
}

/// The filters of a search.
struct Wanted {
    official: Option<bool>,
    automated: Option<bool>,
    stars: u64,
}

impl Wanted {
    fn parse(filters: &Filters) -> Result<Self> {
        filters.allow_only(&["is-automated", "is-official", "stars"])?;
        let mut stars = 0;
        for text in filters.get("stars") {
            let number: u64 = text.parse().map_err(|_| {
                Error::invalid(format!("invalid filter 'stars={text}': strconv.Atoi: parsing {text:?}: invalid syntax"))
            })?;
            stars = stars.max(number);
        }
        Ok(Self { official: filters.boolean("is-official")?, automated: filters.boolean("is-automated")?, stars })
    }

    fn contains(&self, result: &SearchResult) -> bool {
        self.official.is_none_or(|wanted| wanted == result.is_official)
            && self.automated.is_none_or(|wanted| wanted == result.is_automated)
            && result.star_count >= self.stars
    }
}
