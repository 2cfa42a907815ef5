# Who may do what, for every door of the shop. The same decisions as the rules in TypeScript (Authorizer.ts): one table of
# cases is put to both. Deny by default.
package merkato.authz

# May do it to anything.
anyones := {
	"product.write": {"admin"},
	"price.override": {"admin"},
	"flash_sale.write": {"admin"},
	"stock.adjust": {"admin", "service"},
	"stock.reserve": {"shopper", "admin", "service"},
	"cart.create": {"anonymous", "guest", "shopper", "admin"},
	"order.place": {"shopper", "admin"},
	"order.read": {"admin", "service"},
	"order.list": {"shopper", "admin"},
	"order.cancel": {"admin", "service"},
	"order.fulfil": {"admin"},
	"order.review": {"admin"},
	"payment.move": {"shopper", "admin", "service"},
	"risk.assess": {"shopper", "admin", "service"},
	"notification.read": {"shopper", "admin"},
	"webhook.write": {"shopper", "admin"},
	"webhook.use": {"admin"},
	"session.end": {"shopper", "admin"},
	"ops.read": {"admin", "service"},
}

# May do it to what is their own.
own := {
	"cart.use": {"guest", "shopper", "admin"},
	"order.read": {"shopper"},
	"order.pay": {"shopper", "admin"},
	"order.cancel": {"shopper"},
	"webhook.use": {"shopper"},
}

# Of the order; an action that is not here may be done in any.
statuses := {"order.cancel": {"PENDING"}}

# What the shop asks at its start: a policy that does not know all of its actions is not for this shop.
actions := object.keys(anyones) | object.keys(own)

default verdict := "forbidden"

verdict := "allowed" if {
	permitted
	timely
}

# Who asks may do this, but not to an order in this status.
verdict := "not_now" if {
	permitted
	not timely
}

permitted if input.principal.role in anyones[input.action]

permitted if {
	input.principal.role in own[input.action]
	input.resource.ownerId == input.principal.userId
}

timely if not statuses[input.action]

timely if input.resource.status in statuses[input.action]
