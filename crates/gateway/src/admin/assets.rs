//! The dashboard's files, out of the binary.
//!
//! They are built from `dashboard/` and committed, so that the server builds
//! without Node; compressed once, when they are first asked for. Whoever asks gets them without signing in: they hold no secret,
//! and all they show comes from the admin API, which asks for one.

use std::io::Write;
use std::sync::LazyLock;

use actix_web::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, HeaderMap,
    HeaderName, IF_NONE_MATCH, LOCATION, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::web::{self, Bytes};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use super::problem::Problem;

/// What a page of the dashboard may do: talk to its own origin, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; \
    form-action 'self'";

/// Hexadecimal digits of a file's hash that references carry.
const HASH_CHARS: usize = 16;

struct Asset {
    name: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
    gzip: Bytes,
    hash: String,
}

macro_rules! assets {
    ($($name:literal: $kind:literal),* $(,)?) => {
        [$((
            $name,
            $kind,
            include_bytes!(concat!("../../assets/dashboard/", $name)).as_slice(),
        )),*]
    };
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let files = assets! {
        "index.html": "text/html; charset=utf-8",
        "app.js": "text/javascript; charset=utf-8",
        "app.css": "text/css; charset=utf-8",
        "icon.svg": "image/svg+xml",
    };
    let hashed = files.into_iter().map(|(name, kind, bytes)| {
        let digest = Sha256::digest(bytes);
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        Asset {
            name,
            kind,
            bytes,
            gzip: compressed(bytes),
            hash: hash[..HASH_CHARS].to_owned(),
        }
    });
    hashed.collect()
});

fn compressed(bytes: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let done = encoder.write_all(bytes).and_then(|()| encoder.finish());
    done.expect("writing to a vector cannot fail").into()
}

/// Whether whoever asks takes gzip.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let said = headers.get_all(ACCEPT_ENCODING);
    let mut codings = said
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let refused = |part: &str| {
            let weight = part.strip_prefix("q=").map(str::parse::<f32>);
            matches!(weight, Some(Ok(weight)) if weight <= 0.0)
        };
        parts.next() == Some("gzip") && !parts.any(refused)
    })
}

/// Addresses of the dashboard.
pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(front))
        .route("/dashboard", web::get().to(front))
        .service(web::resource("/dashboard/").get(page).head(page))
        .service(web::resource("/dashboard/{name}").get(file).head(file));
}

/// Whoever opens the listener in a browser wants the dashboard.
async fn front() -> HttpResponse {
    with_protection(HttpResponse::SeeOther())
        .insert_header((LOCATION, "/dashboard/"))
        .finish()
}

async fn page(request: HttpRequest) -> Result<HttpResponse, Problem> {
    serve(&request, "index.html")
}

async fn file(request: HttpRequest) -> Result<HttpResponse, Problem> {
    serve(&request, request.match_info().query("name"))
}

fn serve(request: &HttpRequest, name: &str) -> Result<HttpResponse, Problem> {
    // Names are compared, never joined to a path: there is nothing to climb out of.
    let found = ASSETS.iter().find(|asset| asset.name == name);
    let asset = found.ok_or_else(|| {
        Problem::not_found(
            "not_found",
            "the dashboard has no such file; open /dashboard/",
        )
    })?;
    let gzip = takes_gzip(request.headers());
    // One for each form, for they differ byte by byte.
    let form = if gzip { "-gzip" } else { "" };
    let etag = format!("\"{}{form}\"", asset.hash);
    // What is asked for by its hash cannot change; all else is asked for again, by its ETag.
    let by_hash = request
        .query_string()
        .strip_prefix("v=")
        .is_some_and(|hash| hash == asset.hash);
    let keep = if by_hash {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    };
    let known = request.headers().get(IF_NONE_MATCH);
    let unchanged = known
        .and_then(|value| value.to_str().ok())
        .is_some_and(|known| known.split(',').any(|one| one.trim() == etag));
    let mut answer = with_protection(if unchanged {
        HttpResponse::NotModified()
    } else {
        HttpResponse::Ok()
    });
    answer
        .insert_header((ETAG, etag))
        .insert_header((VARY, "Accept-Encoding"))
        .insert_header((CACHE_CONTROL, keep));
    if unchanged {
        return Ok(answer.finish());
    }
    answer.content_type(asset.kind);
    Ok(if gzip {
        answer
            .insert_header((CONTENT_ENCODING, "gzip"))
            .body(asset.gzip.clone())
    } else {
        answer.body(asset.bytes)
    })
}

fn with_protection(mut answer: HttpResponseBuilder) -> HttpResponseBuilder {
    answer
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((REFERRER_POLICY, "no-referrer"))
        .insert_header((
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ))
        .insert_header((
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::App;
    use actix_web::dev::ServiceResponse;
    use actix_web::http::StatusCode;
    use actix_web::test::{TestRequest, call_service, init_service, read_body};

    async fn get(path: &str, known: Option<&str>) -> ServiceResponse {
        let app = init_service(App::new().configure(routes)).await;
        let mut request = TestRequest::get().uri(path);
        if let Some(etag) = known {
            request = request.insert_header((IF_NONE_MATCH, etag));
        }
        call_service(&app, request.to_request()).await
    }

    fn header<'a>(answer: &'a ServiceResponse, name: &str) -> &'a str {
        let value = answer.headers().get(name);
        value.map_or("", |value| value.to_str().unwrap())
    }

    #[actix_web::test]
    async fn the_page_refers_to_what_there_is_by_its_hash() {
        let answer = get("/dashboard/", None).await;
        assert_eq!(answer.status(), StatusCode::OK);
        assert_eq!(header(&answer, "cache-control"), "no-cache");
        assert!(header(&answer, "content-type").starts_with("text/html"));
        let html = String::from_utf8(read_body(answer).await.to_vec()).unwrap();
        for name in ["app.js", "app.css"] {
            let asset = ASSETS.iter().find(|asset| asset.name == name).unwrap();
            let reference = format!("{name}?v={}", asset.hash);
            assert!(html.contains(&reference), "{reference} is not in {html}");
            let answer = get(&format!("/dashboard/{reference}"), None).await;
            assert!(header(&answer, "cache-control").contains("immutable"));
            // An older build's address must not keep this build's content.
            let other = get(&format!("/dashboard/{name}?v=0123456789abcdef"), None).await;
            assert_eq!(header(&other, "cache-control"), "no-cache");
        }
    }

    #[actix_web::test]
    async fn every_answer_is_protected_and_an_unchanged_file_is_not_sent_again() {
        for path in ["/", "/dashboard", "/dashboard/", "/dashboard/icon.svg"] {
            let answer = get(path, None).await;
            let policy = header(&answer, "content-security-policy");
            for part in [
                "default-src 'none'",
                "script-src 'self'",
                "frame-ancestors 'none'",
            ] {
                assert!(policy.contains(part), "{path}: {policy}");
            }
            assert!(!policy.contains("unsafe"), "{path}: {policy}");
            assert_eq!(header(&answer, "x-content-type-options"), "nosniff");
            assert_eq!(header(&answer, "referrer-policy"), "no-referrer");
        }
        let etag = header(&get("/dashboard/app.js", None).await, "etag").to_owned();
        let again = get("/dashboard/app.js", Some(&format!("\"x\", {etag}"))).await;
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert!(read_body(again).await.is_empty());
    }

    #[actix_web::test]
    async fn whoever_takes_gzip_gets_it() {
        let app = init_service(App::new().configure(routes)).await;
        for (takes, gzip) in [
            ("br, gzip", true),
            ("gzip;q=0.5", true),
            ("deflate", false),
            ("gzip;q=0, identity", false),
            ("gzip; q=0.0", false),
            ("xgzip", false),
        ] {
            let request = TestRequest::get().uri("/dashboard/app.css");
            let request = request.insert_header((ACCEPT_ENCODING, takes));
            let answer = call_service(&app, request.to_request()).await;
            assert_eq!(header(&answer, "vary"), "Accept-Encoding");
            let told = header(&answer, "content-encoding") == "gzip";
            assert_eq!(told, gzip, "{takes}");
            let etag = header(&answer, "etag").to_owned();
            assert_eq!(etag.contains("-gzip"), gzip, "{takes}: {etag}");
            let body = read_body(answer).await;
            let plain = get("/dashboard/app.css", None).await;
            let plain = read_body(plain).await;
            if gzip {
                let mut whole = Vec::new();
                std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&*body), &mut whole)
                    .unwrap();
                assert_eq!(whole, plain);
                assert!(body.len() < plain.len());
            } else {
                assert_eq!(body, plain);
            }
        }
    }

    #[actix_web::test]
    async fn nothing_else_is_served() {
        for path in [
            "/dashboard/nothing",
            "/dashboard/..",
            "/dashboard/%2e%2e%2fCargo.toml",
            "/dashboard/../assets/dashboard/app.js",
            "/dashboard/app.js%00",
        ] {
            let answer = get(path, None).await;
            assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
}
