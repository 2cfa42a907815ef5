package merkato.authz_test

import data.merkato.authz

ada := {"userId": "USER-1", "role": "shopper"}

bob := {"userId": "USER-2", "role": "shopper"}

admin := {"userId": "USER-3", "role": "admin"}

cancel(principal, status) := verdict if {
	verdict := authz.verdict with input as {
		"principal": principal,
		"action": "order.cancel",
		"resource": {"ownerId": "USER-1", "status": status},
	}
}

test_owner_cancels_what_is_pending if cancel(ada, "PENDING") == "allowed"

test_admin_cancels_what_is_pending if cancel(admin, "PENDING") == "allowed"

test_stranger_cancels_nothing if {
	every status in ["PENDING", "PAID", "FULFILLED", "CANCELED", "HELD"] {
		cancel(bob, status) == "forbidden"
	}
}

test_nobody_cancels_what_is_not_pending if {
	every who in [ada, admin] {
		every status in ["PAID", "FULFILLED", "CANCELED", "HELD"] {
			cancel(who, status) == "not_now"
		}
	}
}

test_status_that_is_not_told_is_not_pending if {
	authz.verdict == "not_now" with input as {
		"principal": ada,
		"action": "order.cancel",
		"resource": {"ownerId": "USER-1"},
	}
}

override(principal) := verdict if {
	verdict := authz.verdict with input as {"principal": principal, "action": "price.override", "resource": {}}
}

test_only_admins_override_prices if {
	override(admin) == "allowed"
	override(ada) == "forbidden"
}

test_unknown_action_is_forbidden if {
	authz.verdict == "forbidden" with input as {"principal": admin, "action": "shop.sell", "resource": {}}
}

test_empty_question_is_forbidden if authz.verdict == "forbidden" with input as {}

test_owner_without_a_name_owns_nothing if {
	authz.verdict == "forbidden" with input as {"principal": {"role": "shopper"}, "action": "order.read", "resource": {}}
}
