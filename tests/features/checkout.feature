Feature: Checkout
  What shoppers can rely on when they buy what is in their cart.

  Background:
    Given the shop sells
      | product | price | on the shelf |
      | apples  | 2.50  | 10           |
      | milk    | 1.20  | 10           |
      | truffle | 40.00 | 1            |

  Scenario: I buy what is in my cart
    Given Ada has put 2 apples into her cart
    And Ada has put 1 milk into her cart
    When Ada checks out
    Then Ada has bought 2 apples and 1 milk for 6.20 USD
    And Ada's cart is empty
    And there are 8 apples and 9 milk left
    And Ada gets the notice that her order is paid

  Scenario Outline: I pay for as many as I take
    Given Ada has put <apples> apples into her cart
    When Ada checks out
    Then Ada has bought <apples> apples for <total> USD

    Examples:
      | apples | total |
      | 1      | 2.50  |
      | 3      | 7.50  |
      | 10     | 25.00 |

  Scenario: The button pressed twice buys once
    Given Ada has put 1 milk into her cart
    When Ada checks out, and the same again because nothing seemed to happen
    Then Ada has 1 order
    And there are 9 milk left

  Scenario: My card is declined
    Given Ada has put 2 apples into her cart
    When Ada checks out with a card that her bank declines
    Then Ada is told that the card was declined
    And Ada's cart still has 2 apples
    And there are 10 apples left

  Scenario: Another card, after one was declined
    Given Ada has put 2 apples into her cart
    When Ada checks out with a card that her bank declines
    And Ada checks out
    Then Ada has bought 2 apples for 5.00 USD

  Scenario: The last one goes to who is first
    Given Ada has put 1 truffle into her cart
    And Bob has put 1 truffle into his cart
    When Ada checks out
    And Bob checks out
    Then Ada has bought 1 truffle for 40.00 USD
    And Bob is told that there is not enough left
    And Bob's cart still has 1 truffle
    And there are 0 truffle left

  Scenario: Nobody pays more than they saw
    Given Ada has put 2 apples into her cart
    When apples become dearer: 3.00 USD
    And Ada checks out, having seen 5.00 USD
    Then Ada is told that the price has changed
    And there are 10 apples left
    When Ada checks out, having seen 6.00 USD
    Then Ada has bought 2 apples for 6.00 USD

  Scenario: What I put into my cart before I signed in comes with me
    Given a guest has put 1 milk into a cart
    And Ada has put 2 milk into her cart
    When Ada signs in and takes the guest's cart over
    And Ada checks out
    Then Ada has bought 3 milk for 3.60 USD

  Scenario: An empty cart buys nothing
    Given Ada has put 1 milk into her cart
    But Ada has taken the milk out again
    When Ada checks out
    Then Ada is told that the cart is empty
    And Ada has 0 orders

  Scenario: Nobody else can buy my cart, or see my order
    Given Ada has put 1 milk into her cart
    When Bob checks out Ada's cart
    Then Bob is told that there is no such cart
    When Ada checks out
    Then Bob cannot see Ada's order
