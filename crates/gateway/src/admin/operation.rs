//! What can be asked of the admin API: method, path, role, name in the audit
//! log, and the handler, stated together.
//!
//! A handler is reached only through an [`Operation`], which puts the guard
//! before it; there is no way to mount one without saying who may call it. The
//! document of the API takes roles from here as well.

use std::collections::BTreeMap;

use actix_web::http::header::ALLOW;
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::from_fn;
use actix_web::{FromRequest, Handler, HttpResponse, Resource, Responder, Route, Scope, web};

use super::caller::Role;
use super::guard;
use super::problem::Problem;

/// What a request has to satisfy before its handler sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// The least role; `None`: anybody, without a credential.
    pub(super) role: Option<Role>,
    /// Its name in the audit log and in scopes: group and deed.
    pub(super) action: &'static str,
    /// Whether it goes into the audit log.
    pub(super) audited: bool,
    /// Whether it changes something.
    pub(super) writes: bool,
}

/// One thing that can be asked.
pub(super) struct Operation {
    pub(super) method: Method,
    /// Below `/admin/v1`, with `{names}`.
    pub(super) path: &'static str,
    pub(super) rule: Rule,
    route: Route,
}

impl Operation {
    fn new<F, Args>(
        method: Method,
        path: &'static str,
        role: Role,
        action: &'static str,
        handler: F,
    ) -> Self
    where
        F: Handler<Args>,
        Args: FromRequest + 'static,
        F::Output: Responder + 'static,
    {
        let writes = method != Method::GET;
        Self {
            route: web::method(method.clone()).to(handler),
            method,
            path,
            rule: Rule {
                role: Some(role),
                action,
                audited: writes,
                writes,
            },
        }
    }

    /// Puts it into the audit log although it changes nothing.
    pub(super) fn audited(mut self) -> Self {
        self.rule.audited = true;
        self
    }

    /// Lets anybody in, without a credential. The handler looks after itself.
    pub(super) fn open(mut self) -> Self {
        self.rule.role = None;
        self.rule.audited = false;
        self
    }
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident: $method:ident,)+) => {$(
        $(#[$doc])*
        pub(super) fn $name<F, Args>(
            path: &'static str,
            role: Role,
            action: &'static str,
            handler: F,
        ) -> Operation
        where
            F: Handler<Args>,
            Args: FromRequest + 'static,
            F::Output: Responder + 'static,
        {
            Operation::new(Method::$method, path, role, action, handler)
        }
    )+};
}

methods! {
    /// Something to look at.
    get: GET,
    /// Something to do.
    post: POST,
    /// Something to set.
    put: PUT,
    /// Something to change in part.
    patch: PATCH,
    /// Something to take away.
    delete: DELETE,
}

fn guarded(route: Route, rule: Rule) -> Route {
    route.wrap(from_fn(move |request, next| {
        guard::gate(rule, request, next)
    }))
}

/// For what there is not: only who may look around at all is told so.
const NOTHING: Rule = Rule {
    role: Some(Role::Viewer),
    action: "",
    audited: false,
    writes: false,
};

/// All operations in a scope, each behind the guard.
pub(super) fn mount(scope: Scope, operations: Vec<Operation>) -> Scope {
    let mut resources: BTreeMap<&str, (Resource, Vec<String>)> = BTreeMap::new();
    for one in operations {
        let (mut resource, mut methods) = resources
            .remove(one.path)
            .unwrap_or_else(|| (web::resource(one.path), Vec::new()));
        methods.push(one.method.to_string());
        resource = resource.route(guarded(one.route, one.rule));
        resources.insert(one.path, (resource, methods));
    }
    // Names in paths sort after what is fixed, so `/actors/top` is not an actor.
    let scope = resources
        .into_values()
        .fold(scope, |scope, (resource, methods)| {
            let allow = methods.join(", ");
            let refuse = web::route().to(move || {
                let mut answer = Problem::of_status(StatusCode::METHOD_NOT_ALLOWED).answer();
                if let Ok(allow) = allow.parse() {
                    answer.headers_mut().insert(ALLOW, allow);
                }
                async { answer }
            });
            scope.service(resource.default_service(guarded(refuse, NOTHING)))
        });
    let nothing = web::route()
        .to(|| async { Err::<HttpResponse, _>(Problem::of_status(StatusCode::NOT_FOUND)) });
    scope.default_service(guarded(nothing, NOTHING))
}

#[cfg(test)]
mod tests {
    use super::super::openapi;

    #[test]
    fn what_is_fixed_comes_before_names() {
        // BTreeMap order is what `mount` relies on: '{' sorts after letters and digits.
        assert!("/actors/top" < "/actors/{id}" && "/actors/~" > "/actors/{id}");
        let operations = openapi::operations();
        for one in &operations {
            assert!(
                one.path.bytes().all(|b| b.is_ascii_lowercase()
                    || b.is_ascii_digit()
                    || b"/-._{}".contains(&b)),
                "{}",
                one.path
            );
        }
    }

    #[test]
    fn actions_are_named_by_group_and_deed() {
        let mut seen = std::collections::HashSet::new();
        for one in openapi::operations() {
            let action = one.rule.action;
            assert!(seen.insert(action), "{action} is named twice");
            let (group, deed) = action.split_once('.').expect(action);
            let plain = |text: &str| {
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
            };
            assert!(plain(group) && plain(deed), "{action}");
        }
    }
}
